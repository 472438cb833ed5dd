"""What the x86 targets claim of ONNX Runtime and OpenVINO, asked of these runtimes themselves."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitwright.hw_constraints.target import load_target

OPERATORS = load_target("x86-vnni").operators
IMAGE = (1, 16, 8, 8)
# Operators that stay when everything around them is int8: they convert, or pass codes on.
GLUE = {"QuantizeLinear", "DequantizeLinear", "Transpose"}


def qdq_model(
    op: str,
    *shapes: Sequence[int],
    weight: Sequence[int] = (),
    weight_axis: int = 0,
    bias: int = 0,
    constants: Sequence[np.ndarray | None] = (),
    tail: str = "",
    results: int = 1,
    same_scale: bool = False,
    output_zero_point: int = 128,
    quantize_output: bool = True,
    **attributes: Any,
) -> onnx.ModelProto:
    """One operator between u8 Q/DQ pairs, with an s8 weight quantized per channel along `weight_axis`."""
    rng = np.random.default_rng(0)
    nodes, names = [], []
    parameters: dict[str, np.ndarray] = {
        "s": np.float32(0.02),
        "z": np.uint8(128),
        "so": np.float32(0.02 if same_scale else 6 / 255),
        "zo": np.uint8(128 if same_scale else output_zero_point),
        "lo": np.float32(0),
        "hi": np.float32(6),
    }
    for i in range(len(shapes)):
        nodes.append(helper.make_node("QuantizeLinear", [f"x{i}", "s", "z"], [f"x{i}q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"x{i}q", "s", "z"], [f"x{i}d"]))
        names.append(f"x{i}d")
    if weight:
        parameters["w"] = rng.integers(-60, 60, weight).astype(np.int8)
        parameters["ws"] = np.full(weight[weight_axis], 0.01, np.float32)
        parameters["wz"] = np.zeros(weight[weight_axis], np.int8)
        nodes.append(helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=weight_axis))
        names.append("wd")
    if bias:
        parameters["b"] = np.zeros(bias, np.int32)
        parameters["bs"] = np.full(bias, 0.0002, np.float32)
        nodes.append(helper.make_node("DequantizeLinear", ["b", "bs"], ["bd"], axis=0))
        names.append("bd")
    for i, constant in enumerate(constants):
        names.append("" if constant is None else f"c{i}")
        if constant is not None:
            parameters[f"c{i}"] = constant
    outputs = [f"y{i}" for i in range(results)]
    nodes.append(helper.make_node(op, names, outputs, **attributes))
    if tail:
        nodes.append(helper.make_node(tail, ["y0", *(["lo", "hi"] if tail == "Clip" else [])], ["t"]))
        outputs = ["t"]
    if quantize_output:
        for name in outputs:
            nodes.append(helper.make_node("QuantizeLinear", [name, "so", "zo"], [f"{name}q"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}q", "so", "zo"], [f"{name}d"]))
        outputs = [f"{name}d" for name in outputs]
    graph = helper.make_graph(
        nodes,
        "one_operator",
        [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i, shape in enumerate(shapes)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in parameters.items()],
    )
    opset = load_target("x86-vnni").artifact.opset
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def optimised_operators(model: onnx.ModelProto, folder: Path) -> set[str]:
    """The operator types in ONNX Runtime's own optimised graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}


def indices(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def conv(rank: int, **options: Any) -> onnx.ModelProto:
    shape = (1, 16, *[8] * rank)
    return qdq_model("Conv", shape, weight=(16, 16, *[3] * rank), bias=16, pads=[1] * 2 * rank, **options)


def gemm(**options: Any) -> onnx.ModelProto:
    return qdq_model("Gemm", (4, 16), weight=(32, 16), bias=32, transB=1, **options)


def products() -> onnx.ModelProto:
    return qdq_model("MatMul", (1, 4, 16), (1, 16, 4))


# How each quantized operator type is written in ONNX, and its int8 kernel.
QUANTIZED: Mapping[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "conv1d": (lambda: conv(1), "QLinearConv"),
    "conv2d": (lambda: conv(2), "QLinearConv"),
    "conv3d": (lambda: conv(3), "QLinearConv"),
    "linear": (gemm, "QGemm"),
    "addmm": (gemm, "QGemm"),
    "matmul": (products, "QLinearMatMul"),
    "mm": (lambda: qdq_model("MatMul", (4, 16), weight=(16, 32), weight_axis=1), "QLinearMatMul"),
    "bmm": (products, "QLinearMatMul"),
    "add": (lambda: qdq_model("Add", IMAGE, IMAGE), "QLinearAdd"),
    "mul": (lambda: qdq_model("Mul", IMAGE, IMAGE), "QLinearMul"),
    "avg_pool2d": (lambda: qdq_model("AveragePool", IMAGE, kernel_shape=[2, 2]), "QLinearAveragePool"),
    "adaptive_avg_pool2d": (lambda: qdq_model("GlobalAveragePool", IMAGE), "QLinearGlobalAveragePool"),
    "leaky_relu": (lambda: qdq_model("LeakyRelu", IMAGE), "QLinearLeakyRelu"),
    "sigmoid": (lambda: qdq_model("Sigmoid", IMAGE), "QLinearSigmoid"),
    "softmax": (lambda: qdq_model("Softmax", (1, 4, 16)), "QLinearSoftmax"),
}


def moved(op: str, *constants: np.ndarray | None, shape: Sequence[int] = IMAGE, **attributes: Any) -> onnx.ModelProto:
    return qdq_model(op, shape, constants=constants, same_scale=True, **attributes)


def split() -> onnx.ModelProto:
    return moved("Split", indices(8, 8), axis=1, results=2)


def reshape() -> onnx.ModelProto:
    return moved("Reshape", indices(1, -1))


def permute() -> onnx.ModelProto:
    return moved("Transpose", perm=[0, 2, 3, 1])


def nearest() -> onnx.ModelProto:
    scales = np.array([1, 1, 2, 2], np.float32)
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return moved("Resize", None, scales, **how)


SHARED: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "cat": lambda: qdq_model("Concat", IMAGE, IMAGE, axis=1, same_scale=True),
    "max_pool1d": lambda: moved("MaxPool", shape=(1, 16, 8), kernel_shape=[2]),
    "max_pool2d": lambda: moved("MaxPool", kernel_shape=[2, 2]),
    "upsample_nearest2d": nearest,
    "pixel_shuffle": lambda: moved("DepthToSpace", blocksize=2, mode="CRD"),
    "split": split,
    "split_with_sizes": split,
    "chunk": split,
    "slice": lambda: moved("Slice", indices(0), indices(4), indices(1)),
    "select": lambda: moved("Gather", np.array(1, np.int64), axis=1),
    "view": reshape,
    "_unsafe_view": reshape,
    "reshape": reshape,
    "flatten": lambda: moved("Flatten"),
    "unflatten": reshape,
    "permute": permute,
    "transpose": permute,
    "squeeze": lambda: moved("Squeeze", indices(2, 3), shape=(1, 16, 1, 1)),
    "unsqueeze": lambda: moved("Unsqueeze", indices(0)),
    "expand": lambda: moved("Expand", indices(*IMAGE), shape=(1, 16, 1, 1)),
    "index_select": lambda: moved("Gather", indices(0, 1), axis=1),
}


def test_every_operator_of_the_target_is_asked_about() -> None:
    assert QUANTIZED.keys() == OPERATORS.quantized
    assert SHARED.keys() == OPERATORS.shared_qparams


@pytest.mark.parametrize("op", QUANTIZED)
def test_onnx_runtime_has_an_int8_kernel(op: str, tmp_path: Path) -> None:
    build, kernel = QUANTIZED[op]
    assert optimised_operators(build(), tmp_path) - GLUE == {kernel}


@pytest.mark.parametrize("op", SHARED)
def test_onnx_runtime_passes_codes_on(op: str, tmp_path: Path) -> None:
    optimised_operators(SHARED[op](), tmp_path)
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    floats = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    assert floats == {output.name for output in graph.output}
    assert not floats & {name for node in graph.node for name in node.input}


@pytest.mark.parametrize("tail", ["Relu", "Clip"])
@pytest.mark.parametrize("build", [lambda **o: conv(2, **o), gemm], ids=["conv", "gemm"])
def test_relu_and_relu6_vanish_into_the_quantizer(build: Callable[..., Any], tail: str, tmp_path: Path) -> None:
    assert optimised_operators(build(tail=tail, output_zero_point=0), tmp_path) - GLUE <= {"QLinearConv", "QGemm"}


@pytest.mark.parametrize("tail", ["Sigmoid", "LeakyRelu", "HardSwish"])
def test_other_activations_would_pull_their_convolution_into_float(tail: str, tmp_path: Path) -> None:
    assert not any(f"-> {tail.lower()}" in " -> ".join(chain) for chain in OPERATORS.fused_patterns)
    assert "QLinearConv" not in optimised_operators(conv(2, tail=tail), tmp_path)


def test_transposed_convolutions_run_in_float(tmp_path: Path) -> None:
    assert "conv_transpose2d" not in OPERATORS.quantized
    model = qdq_model("ConvTranspose", IMAGE, weight=(16, 16, 2, 2), weight_axis=1, strides=[2, 2])
    assert "ConvTranspose" in optimised_operators(model, tmp_path)


def test_open_dimensions_load(tmp_path: Path) -> None:
    model = conv(2)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    assert "QLinearConv" in optimised_operators(model, tmp_path)


def test_four_bit_tensors_run_in_float(tmp_path: Path) -> None:
    assert {spec.format.name for spec in load_target("x86-vnni").numerics.weights} == {"int8"}
    model = conv(2)
    model.opset_import[0].version = 21  # the first with 4-bit tensors
    model.ir_version = 10
    for tensor in model.graph.initializer:
        if tensor.name in ("w", "wz"):
            codes = numpy_helper.to_array(tensor).clip(-8, 7).astype(ml_dtypes.int4)
            tensor.CopyFrom(numpy_helper.from_array(codes, tensor.name))
    assert "Conv" in optimised_operators(model, tmp_path)


def test_seven_bit_weights_are_exact_where_eight_would_saturate(tmp_path: Path) -> None:
    (spec,) = load_target("x86-avx2").numerics.weights
    low, high = spec.code_range
    x = np.full((1, 64, 8, 8), 255, np.float32)
    for code in (low, high):
        model = saturating_conv(code)
        options = onnxruntime.SessionOptions()
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {"x": x})
        assert optimised_operators(model, tmp_path) - GLUE == {"QLinearConv"}
        # Every product is 255 * code; the output's scale is chosen so that their sum is the largest code.
        np.testing.assert_array_equal(y, np.sign(code) * np.float32(255 * 64 * abs(code)))


def saturating_conv(code: int) -> onnx.ModelProto:
    """A 1x1 convolution of 64 channels whose every weight is `code`, with scales of 1."""
    zero_point = 0 if code > 0 else 255
    parameters = {
        "s": np.float32(1),
        "z": np.uint8(0),
        "w": np.full((16, 64, 1, 1), code, np.int8),
        "ws": np.ones(16, np.float32),
        "wz": np.zeros(16, np.int8),
        "so": np.float32(64 * abs(code)),
        "zo": np.uint8(zero_point),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "so", "zo"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "so", "zo"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "saturating",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in parameters.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize("op", ["conv1d", "conv2d", "conv3d", "linear", "avg_pool2d"])
def test_openvino_runs_the_heavy_ones_in_int8(op: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is an extra")
    path = tmp_path / "model.onnx"
    onnx.save(QUANTIZED[op][0](), path)
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kernels = {"Convolution", "FullyConnected", "Pooling"}
    found = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    heavy = [info for info in found if str(info["layerType"].value) in kernels]
    assert [str(info["runtimePrecision"].value) for info in heavy] == ["u8"]
