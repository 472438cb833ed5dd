"""Each cause of a layer in float, planted alone, is named; and a layer in int8 is left alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.proof import State, prove
from bitwright.hw_constraints.proof.case import CaseModel, read_case
from bitwright.hw_constraints.proof.causes import CAUSES
from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph
from bitwright.hw_constraints.proof.probe import Prober

RUNTIMES = ["onnxruntime", "openvino"]


@dataclass
class Planted:
    """What is wrong with one convolution."""

    activations: Any = np.uint8
    weights: Any = np.int8
    input_quantized: bool = True
    output_quantized: bool = True
    activation: str = ""
    zero_point: int | None = None
    scale: float = 0.05
    bias_off_by: float = 1.0
    bias: bool = True
    weight: str = "codes"
    extra_reader: bool = False
    is_output: bool = False
    quantizers: int = 1
    code_readers: int = 1
    opset: int = 17

    def model(self, network: Any) -> onnx.ModelProto:
        net = network(activations=self.activations, weights=self.weights, opset=self.opset)
        value = net.qdq("image") if self.input_quantized else "image"
        operands = [value, self._weight(net)]
        if self.bias:
            operands.append(net.bias(value, 8, off_by=self.bias_off_by))
        result = net.node("Conv", *operands, pads=[1] * 4)
        outputs = [net.node("Neg", result)] if self.extra_reader else []
        outputs += [net.node("Neg", value) for _ in range(self.code_readers - 1)]
        outputs += [result] if self.is_output else []
        if self.activation == "Clip":
            result = net.relu6(result)
        elif self.activation:
            result = net.node(self.activation, result)
        for _ in range(self.quantizers if self.output_quantized else 0):
            outputs.append(net.qdq(result, scale=self.scale, zero_point=self.zero_point))
        extra = {"kernel": (8, 16, 3, 3)} if "computed" in self.weight else None
        return net.model(*(outputs if self.output_quantized else [*outputs, result]), extra=extra)

    def _weight(self, net: Any) -> str:
        if self.weight == "float":
            return net.constant(net.random.standard_normal((8, 16, 3, 3)).astype(np.float32))
        if self.weight == "computed":
            return net.node("Neg", "kernel")
        if self.weight == "computed in codes":
            return net.qdq("kernel")
        if self.weight == "asymmetric":
            return net.weight(8, 16, 3, 3, zero_point=3)
        if self.weight == "int4":
            codes = helper.make_tensor("codes", TensorProto.INT4, (8, 16, 3, 3), [1] * 8 * 16 * 9)
            zeros = helper.make_tensor("zeros", TensorProto.INT4, (8,), [0] * 8)
            net.initializers += [codes, zeros]
            return net.node("DequantizeLinear", "codes", net.constant(np.full(8, 0.002, np.float32)), "zeros", axis=0)
        return net.weight(8, 16, 3, 3)


def conv_of(report: Any) -> Any:
    return next(layer for layer in report.layers if layer.op == "Conv")


# What was planted, and what each runtime makes of it: the causes it must name, () for a layer in int8.
PLANTED = {
    "nothing": (Planted(), (), ()),
    "relu": (Planted(activation="Relu", zero_point=0), (), ()),
    "relu6": (Planted(activation="Clip", zero_point=0, scale=6 / 255), (), ()),
    "input": (Planted(input_quantized=False, bias=False), ("input_not_quantized",), ("input_not_quantized",)),
    "output": (Planted(output_quantized=False), ("output_not_quantized",), ()),
    "signed and shared": (Planted(activations=np.int8, code_readers=2), ("signed_activations",), ()),
    "signed alone": (Planted(activations=np.int8), (), ()),
    "zero point under relu": (Planted(activation="Relu", zero_point=1), ("activation_not_saturated",), ()),
    "symmetric under relu": (
        Planted(activations=np.int8, activation="Relu", zero_point=0),
        ("activation_not_saturated",),
        (),
    ),
    "range beyond relu6": (
        Planted(activation="Clip", zero_point=0, scale=6.1 / 255),
        ("activation_not_saturated",),
        (),
    ),
    "hardswish": (Planted(activation="HardSwish"), ("activation_not_absorbed",), ()),
    "bias scale": (Planted(bias_off_by=1.5), ("bias_scale",), ()),
    "read in float": (Planted(extra_reader=True), ("read_in_float",), ()),
    "result of the graph": (Planted(is_output=True), ("read_in_float",), ()),
    "quantized twice": (Planted(quantizers=2), ("quantized_twice",), ()),
    "float weight": (Planted(weight="float", bias=False), (), ("weight_not_quantized",)),
    "computed weight": (
        Planted(weight="computed", bias=False),
        ("weight_not_constant",),
        ("weight_not_constant",),
    ),
    "weight computed in codes": (Planted(weight="computed in codes", bias=False), (), ()),
    "asymmetric weight": (Planted(weight="asymmetric"), (), ("weight_asymmetric",)),
    "unsigned weight": (Planted(weights=np.uint8), (), ("weight_unsigned",)),
    "int4 weight": (Planted(weight="int4", bias=False, opset=21), ("wide_codes",), ("wide_codes",)),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", PLANTED)
def test_planted_cause_is_named(network, saved, name, runtime):
    if reason := get_backend(runtime).available():
        pytest.skip(reason)
    planted, *expected = PLANTED[name]
    layer = conv_of(prove(saved(planted.model(network)), runtime, runs=1))
    causes = expected[RUNTIMES.index(runtime)]
    assert layer.state is (State.FLOAT if causes else State.INT8)
    assert (layer.reason.causes if layer.reason else ()) == causes


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_following_the_reason_puts_the_layer_into_int8(network, runtime):
    if reason := get_backend(runtime).available():
        pytest.skip(reason)
    prober = Prober(get_backend(runtime))
    for planted, *_ in PLANTED.values():
        graph = OnnxGraph(planted.model(network), "planted")
        index = next(i for i, node in enumerate(graph.nodes) if node.op_type == "Conv")
        case = read_case(graph, index)
        assert case is not None
        if prober.runs_in_int8(case):
            continue
        causes = prober.reason(case).causes
        for cause in (cause for cause in CAUSES if cause.__name__ in causes):
            change = cause(case)
            assert change is not None
            case = change.case
        assert prober.runs_in_int8(case), causes


def test_the_sentence_says_what_was_found_and_what_would_do(network, saved):
    path = saved(Planted(activations=np.int8, code_readers=2).model(network))
    assert str(conv_of(prove(path, "onnxruntime", runs=1)).reason) == (
        "activation codes are signed (int8, zero point 0); it runs in int8 with unsigned activation codes (uint8)"
    )


def test_two_causes_at_once_are_both_named(network, saved):
    path = saved(Planted(activation="Relu", zero_point=1, bias_off_by=1.5).model(network))
    layer = conv_of(prove(path, "onnxruntime", runs=1))
    assert layer.reason.causes == ("activation_not_saturated", "bias_scale")


@pytest.mark.parametrize(("scale", "causes"), [(0.05, None), (0.04, ("codes_differ",))])
def test_a_pool_that_selects_codes(network, saved, scale, causes):
    net = network()
    value = net.node("MaxPool", net.qdq(net.conv(net.qdq("image"), (16, 8))), kernel_shape=[2, 2], strides=[2, 2])
    report = prove(saved(net.model(net.qdq(net.conv(net.qdq(value, scale=scale), (8, 8))))), "onnxruntime", runs=1)
    pool = next(layer for layer in report.layers if layer.op == "MaxPool")
    assert (pool.reason.causes if pool.reason else None) == causes


def test_a_reshape_between_a_float_pool_and_its_quantizer(network, saved):
    """As Brevitas writes the end of a classifier."""
    net = network()
    value = net.node("Flatten", net.node("GlobalAveragePool", net.qdq(net.conv(net.qdq("image"), (16, 8)))))
    value = net.qdq(value)
    value = net.node("Gemm", value, net.weight(10, 8), net.bias(value, 10), transB=1)
    layers = {layer.op: layer for layer in prove(saved(net.model(value)), "onnxruntime", runs=1).layers}
    assert layers["GlobalAveragePool"].reason.causes == ("output_not_quantized",)
    assert layers["Flatten"].reason.causes == ("input_not_quantized",)
    assert layers["Gemm"].state is State.INT8


def test_an_operator_without_int8_kernel(network, saved):
    net = network()
    value = net.node("ConvTranspose", net.qdq("image"), net.weight(16, 8, 2, 2, axis=1))
    (layer,) = prove(saved(net.model(net.qdq(value))), "onnxruntime", runs=1).layers
    assert layer.reason.causes == ("no_int8_kernel",)


def test_a_layer_that_the_file_leaves_in_float(network, saved):
    net = network()
    value = net.node("Softmax", net.node("Neg", net.qdq(net.conv(net.qdq("image"), (16, 8)))))
    report = prove(saved(net.model(value)), "onnxruntime", runs=1)
    assert {layer.op: layer.reason.causes for layer in report.layers if layer.state is State.FLOAT}["Softmax"] == (
        "not_quantized",
    )


def test_equal_layers_are_asked_once(network):
    planted = Planted(bias_off_by=1.5)
    prober, counts = Prober(get_backend("onnxruntime")), []
    for _ in range(2):
        graph = OnnxGraph(planted.model(network), "planted")
        index = next(i for i, node in enumerate(graph.nodes) if node.op_type == "Conv")
        case = read_case(graph, index)
        assert case is not None
        prober.reason(case)
        counts.append(prober.probes)
    assert counts[0] == counts[1] > 1


def test_the_built_case_is_a_valid_model(network):
    for planted, *_ in PLANTED.values():
        graph = OnnxGraph(planted.model(network), "planted")
        index = next(i for i, node in enumerate(graph.nodes) if node.op_type == "Conv")
        case = read_case(graph, index)
        assert case is not None
        built = CaseModel(case)
        assert built.model.graph.node[built.layer].op_type == "Conv"
        onnx.shape_inference.infer_shapes(built.model, check_type=True, strict_mode=True)
