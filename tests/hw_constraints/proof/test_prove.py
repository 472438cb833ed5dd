"""States and shares against the runtimes' own traces, read here independently of the join."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.proof import State, format_table, prove
from bitwright.hw_constraints.proof.onnx_graph import random_inputs, read_onnx
from bitwright.quant.errors import InputError

WEIGHTED = ("Conv", "Gemm", "MatMul")
VARIANTS = {"sound": {}, "branch in float": {"quantize_branch": False}, "sum in float": {"quantize_sum": False}}


def onnxruntime_counts(path: Path, batch: dict[str, np.ndarray], folder: Path) -> Counter[str]:
    """Kernels of the untouched file by operator type, from ONNX Runtime's own trace."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "trace")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, batch)
    events = json.loads(Path(session.end_profiling()).read_text())
    return Counter(event["args"]["op_name"] for event in events if event.get("cat") == "Node")


def openvino_counts(path: Path) -> Counter[tuple[str, str]]:
    """Layers of the untouched file by (type, precision), from OpenVINO's own runtime graph."""
    openvino = pytest.importorskip("openvino")
    hint = {"INFERENCE_PRECISION_HINT": "f32"}  # as the backend asks; else newer processors would say bf16
    compiled = openvino.Core().compile_model(str(path), "CPU", hint)
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return Counter((info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in infos)


@pytest.mark.parametrize("variant", VARIANTS)
def test_states_agree_with_onnxruntimes_trace(block, saved, tmp_path, image, variant):
    path = saved(block(**VARIANTS[variant]))
    report = prove(path, "onnxruntime", inputs={"image": image})
    counts = onnxruntime_counts(path, {"image": image}, tmp_path)
    states = Counter((layer.op, layer.state) for layer in report.layers)
    assert states["Conv", State.INT8] == counts["QLinearConv"]
    assert states["Conv", State.FLOAT] == counts["Conv"] + counts["FusedConv"]
    assert states["Gemm", State.INT8] == counts["QGemm"]
    assert states["Add", State.INT8] == counts["QLinearAdd"]
    assert states["Add", State.FLOAT] == counts["Add"]
    assert states["GlobalAveragePool", State.INT8] == counts["QLinearGlobalAveragePool"] == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_states_agree_with_openvinos_trace(block, saved, image, variant):
    path = saved(block(**VARIANTS[variant]))
    counts = openvino_counts(path)
    report = prove(path, "openvino", inputs={"image": image})
    states = Counter((layer.op, layer.state) for layer in report.layers)
    assert states["Conv", State.INT8] == counts["Convolution", "u8"] + counts["Convolution", "i8"]
    assert states["Conv", State.FLOAT] == counts["Convolution", "f32"]
    assert states["Gemm", State.INT8] == counts["FullyConnected", "u8"] == 1


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_sound_network_is_all_int8(block, saved, runtime):
    if reason := get_backend(runtime).available():
        pytest.skip(reason)
    report = prove(saved(block()), runtime)
    assert report.int8_mac_share == pytest.approx(1)
    assert report.is_fully_low_precision
    assert all(layer.state is not State.FLOAT for layer in report.layers)
    folded = {layer.op: layer.folded_into for layer in report.layers if layer.state is State.FOLDED}
    assert "conv" in folded["Clip"]


def test_shares_are_shares(block, saved):
    report = prove(saved(block(quantize_sum=False)), "onnxruntime")
    assert sum(layer.mac_share for layer in report.layers) == pytest.approx(1)
    times = report.time_share(State.INT8) + report.time_share(State.FLOAT) + report.conversion_time_share
    assert times == pytest.approx(1)
    assert 0 < report.int8_mac_share < 1
    assert not report.is_fully_low_precision
    total = sum(layer.macs for layer in report.layers)
    assert all(layer.mac_share == pytest.approx(layer.macs / total) for layer in report.layers if layer.is_weighted)


def test_a_float_file_has_no_int8_and_says_why(resnet18, saved):
    report = prove(saved(resnet18), "onnxruntime", runs=1)
    assert report.int8_mac_share == 0
    reasons = {layer.reason.found for layer in report.layers if layer.op == "Conv"}
    assert reasons == {"the file has no QuantizeLinear at all"}
    assert {layer.op for layer in report.layers if layer.state is State.FOLDED} == {"Relu", "Add"}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_batch_norm_pad_and_activation_are_folded_into_their_convolution(network, saved, runtime):
    if reason := get_backend(runtime).available():
        pytest.skip(reason)
    net = network()
    value = net.node("Pad", "image", net.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    value = net.node("Conv", value, net.constant(net.random.standard_normal((8, 16, 3, 3)).astype(np.float32)))
    parameters = [net.constant(np.full(8, number, np.float32)) for number in (1.5, 0.1, 0.2, 0.9)]
    value = net.node("BatchNormalization", value, *parameters)
    value = net.node("MatMul", net.node("Relu", value), net.constant(np.ones((12, 5), np.float32)))
    value = net.node("Add", value, net.constant(np.ones(5, np.float32)))
    layers = {layer.op: layer for layer in prove(saved(net.model(value)), runtime, runs=1).layers}
    for op, into in {"Pad": "Conv", "BatchNormalization": "Conv", "Relu": "Conv", "Add": "MatMul"}.items():
        assert layers[op].folded_into == layers[into].name
        assert layers[op].state is State.FOLDED


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_fp8_is_proven_in_the_file_and_not_claimed_of_the_runtime(network, saved, runtime):
    if reason := get_backend(runtime).available():
        pytest.skip(reason)
    net = network(opset=21)
    zero = onnx.helper.make_tensor("zero", onnx.TensorProto.FLOAT8E4M3FN, (), [0.0])
    codes = onnx.helper.make_tensor("codes", onnx.TensorProto.FLOAT8E4M3FN, (8, 16, 1, 1), [0.5] * 128)
    net.initializers += [zero, codes]
    scale = net.constant(np.float32(0.01))
    value = net.node("DequantizeLinear", net.node("QuantizeLinear", "image", scale, "zero"), scale, "zero")
    result = net.node("Conv", value, net.node("DequantizeLinear", "codes", scale, "zero"))
    report = prove(saved(net.model(result)), runtime, runs=1)
    (layer,) = [layer for layer in report.layers if layer.op == "Conv"]
    assert (layer.state, layer.precision) == (State.FP8, "float32")
    assert layer.file_format == "float8_e4m3fn x float8_e4m3fn"
    assert "not executed in fp8 by this runtime" in str(layer.reason)
    assert (report.int8_mac_share, report.fp8_mac_share) == (0, 1)


def test_names_are_references_where_our_exporter_says_so(block, saved, tmp_path):
    path = saved(block())
    conv = next(node for node in onnx.load(path).graph.node if node.op_type == "Conv")
    provenance = {"values": {conv.output[0]: "features.0.0@0.0.0"}}
    (tmp_path / "model.provenance.json").write_text(json.dumps(provenance))
    named = [layer for layer in prove(path, "onnxruntime", runs=1).layers if layer.ref]
    assert [(layer.name, layer.ref, layer.output) for layer in named] == [
        ("features.0.0@0.0.0", "features.0.0@0.0.0", conv.output[0])
    ]


def test_a_damaged_provenance_is_refused(block, saved, tmp_path):
    path = saved(block())
    (tmp_path / "model.provenance.json").write_text("{")
    with pytest.raises(InputError, match=r"model\.provenance\.json: not a provenance file"):
        prove(path, "onnxruntime")


def test_the_record_is_json_and_the_table_has_a_row_a_layer(block, saved):
    report = prove(saved(block(quantize_sum=False)), "onnxruntime", runs=1)
    record = json.loads(json.dumps(report.to_json()))
    assert record["int8_mac_share"] == pytest.approx(report.int8_mac_share)
    assert record["machine"]["cpu_model"] == report.machine.cpu_model
    assert {layer["state"] for layer in record["layers"]} == {"int8", "float", "folded"}
    lines = format_table(report).splitlines()
    assert len(lines) == 1 + len(report.layers) + 1 + len(report.warnings)
    assert lines[0].split() == ["layer", "operator", "state", "kernel", "time", "MACs", "reason"]
    assert "of conv and linear MACs in int8" in format_table(report)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("missing.onnx", None, r"missing\.onnx: no such file"),
        ("empty.onnx", b"", r"empty\.onnx: not a readable ONNX model"),
        ("text.onnx", b"hello, world", r"text\.onnx: not a readable ONNX model"),
    ],
)
def test_bad_files(tmp_path, file, content, message):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        prove(tmp_path / file, "onnxruntime")


def test_models_beyond_protobufs_limit_are_refused(resnet18, saved, monkeypatch):
    monkeypatch.setattr("bitwright.hw_constraints.proof.onnx_graph.LARGEST_MODEL_BYTES", 2**20)
    with pytest.raises(InputError, match=r"0\.0 GiB of weights; models above 2 GiB cannot be traced"):
        prove(saved(resnet18), "onnxruntime")


def test_another_kind_of_file_is_called_by_its_name(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    with pytest.raises(InputError, match=r"a\.tflite: is a LiteRT model; layers are read from ONNX models only"):
        prove(tmp_path / "a.tflite", "openvino")


def test_unknown_runtime(block, saved):
    with pytest.raises(InputError, match="unknown backend 'hailo'; there are: cuda, "):
        prove(saved(block()), "hailo")


def test_dynamic_shapes_need_inputs(network, saved):
    net = network()
    path = saved(net.model(net.qdq(net.conv(net.qdq("image"), (16, 8))), shape=("n", 16, "h", "w")))
    with pytest.raises(InputError, match=r"input 'image' has shape \(None, 16, None, None\): give inputs"):
        prove(path, "onnxruntime")
    batch = {"image": np.zeros((1, 16, 9, 9), np.float32)}
    (layer,) = prove(path, "onnxruntime", inputs=batch).layers
    assert layer.state is State.INT8


@pytest.mark.parametrize("shape", [(1, 16, -3, 8), (2**40, 2**40)], ids=str)
def test_inputs_of_impossible_sizes_are_refused_by_name(network, saved, shape):
    net = network()
    path = saved(net.model(net.node("Relu", "image"), shape=shape))
    message = (
        f"{path}: input 'image' has shape {shape}; dimensions must be 0 or more, and 4 GiB of float64 must hold it"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        random_inputs(read_onnx(path))


def test_a_file_that_the_runtime_refuses(network, saved):
    net = network()
    path = saved(net.model(net.node("NoSuchOperator", "image")))
    with pytest.raises(InputError, match=r"model\.onnx: onnxruntime cannot load it: .*NoSuchOperator"):
        prove(path, "onnxruntime")


@pytest.mark.parametrize("bias", [True, False])
def test_openvino_a_layer_whose_real_values_also_leave_is_int8_as_its_convolution_is(network, saved, bias):
    net = network()
    leaves = net.conv(net.qdq("image"), (16, 16), bias=bias)
    path = saved(net.model(leaves, net.conv(net.qdq(leaves), (16, 16))))
    assert openvino_counts(path)["Convolution", "f32"] == 0
    report = prove(path, "openvino")
    assert [layer.state for layer in report.layers if layer.op == "Conv"] == [State.INT8, State.INT8]


def test_a_concatenation_that_goes_by_the_quantizer_behind_it_is_found(network, saved):
    """OpenVINO names it after the DequantizeLinear of the result; it is no conversion, nor a convolution's work."""
    pytest.importorskip("openvino")
    net = network()
    image = net.qdq("image")
    halves = [net.qdq(net.conv(image, (16, 8))) for _ in range(2)]
    value = net.qdq(net.node("Concat", *halves, axis=1))
    report = prove(saved(net.model(value)), "openvino")
    layer = next(layer for layer in report.layers if layer.op == "Concat")
    assert (layer.kernel, layer.folded_into, layer.state) == ("Concatenation", None, State.INT8)


def test_a_convolution_that_goes_by_the_quantizer_behind_it_is_found(network, saved):
    """With a normalization folded into it, OpenVINO keeps only the name of the QuantizeLinear that follows."""
    pytest.importorskip("openvino")
    net = network()
    value = net.conv(net.qdq("image"), (16, 16))
    figures = [net.constant(np.full(16, each, np.float32)) for each in (1.5, 0.1, 0.2, 2.0)]
    value = net.qdq(net.node("BatchNormalization", value, *figures))
    report = prove(saved(net.model(net.qdq(net.node("GlobalAveragePool", value)))), "openvino")
    layers = {layer.op: layer for layer in report.layers}
    assert layers["Conv"].kernel == "Convolution" and layers["Conv"].state is State.INT8
    assert layers["Conv"].folded_into is None and layers["Conv"].time_us >= 0
    assert layers["BatchNormalization"].folded_into == layers["Conv"].name
