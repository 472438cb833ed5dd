"""Files in the styles that other tools write: ONNX Runtime's quantizer makes three of them."""

from typing import Any

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.proof import State, prove


class Pictures(CalibrationDataReader):
    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.left = [{"image": random.standard_normal((1, 16, 12, 12)).astype(np.float32)} for _ in range(3)]

    def get_next(self) -> dict[str, Any] | None:
        return self.left.pop() if self.left else None


@pytest.fixture
def float_file(network, saved):
    """Stem, residual block, pool, linear: one tensor with two readers."""
    net = network()

    def conv(value: str, channels: tuple[int, int]) -> str:
        weight = net.constant(net.random.normal(0, 0.2, (channels[1], channels[0], 3, 3)).astype(np.float32))
        bias = net.constant(net.random.normal(0, 0.2, channels[1]).astype(np.float32))
        return net.node("Conv", value, weight, bias, pads=[1] * 4)

    stem = net.node("Relu", conv("image", (16, 16)))
    value = net.node("Add", stem, conv(net.node("Relu", conv(stem, (16, 16))), (16, 16)))
    value = net.node("Flatten", net.node("GlobalAveragePool", net.node("Relu", value)))
    weight = net.constant(net.random.normal(0, 0.2, (10, 16)).astype(np.float32))
    return saved(net.model(net.node("Gemm", value, weight, net.constant(np.ones(10, np.float32)), transB=1)), "f.onnx")


def quantized(float_file, **options):
    path = float_file.with_name("q.onnx")
    options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True} | options
    quantize_static(str(float_file), str(path), Pictures(), **options)
    return path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_u8s8_qdq_is_all_int8(float_file, runtime):
    if reason := get_backend(runtime).available():
        pytest.skip(reason)
    assert prove(quantized(float_file), runtime, runs=1).int8_mac_share == pytest.approx(1)


def test_s8s8_qdq_is_partly_float_because_the_codes_are_signed(float_file):
    path = quantized(float_file, activation_type=QuantType.QInt8)
    report = prove(path, "onnxruntime", runs=1)
    assert 0 < report.int8_mac_share < 1
    floats = [layer for layer in report.layers if layer.state is State.FLOAT and layer.op in ("Conv", "Add")]
    assert floats
    assert {layer.reason.causes for layer in floats} == {("signed_activations",)}


def test_integer_operators_are_int8_as_they_are(float_file):
    path = quantized(float_file, quant_format=QuantFormat.QOperator)
    report = prove(path, "onnxruntime", runs=1)
    assert report.int8_mac_share == pytest.approx(1)
    operators = {layer.op for layer in report.layers if layer.is_weighted}
    assert operators == {"QLinearConv", "QGemm"}


def test_weights_stored_in_float_before_their_quantizer(network, saved):
    """As AIMET, Brevitas and ModelOpt write them."""
    net = network()
    scale = net.constant(np.full(8, 0.02, np.float32))
    zero = net.constant(np.zeros(8, np.int8))
    real = net.constant(net.random.standard_normal((8, 16, 3, 3)).astype(np.float32))
    weight = net.node("DequantizeLinear", net.node("QuantizeLinear", real, scale, zero, axis=0), scale, zero, axis=0)
    path = saved(net.model(net.qdq(net.node("Conv", net.qdq("image"), weight))))
    (layer,) = prove(path, "onnxruntime", runs=1).layers
    assert (layer.state, layer.file_format) == (State.INT8, "uint8 x int8")


def test_a_graph_without_node_names_is_known_by_its_values(block, saved):
    model = block()
    for node in model.graph.node:
        node.name = ""
    report = prove(saved(model), "onnxruntime", runs=1)
    assert report.int8_mac_share == pytest.approx(1)
    assert all(layer.name == layer.output for layer in report.layers)
