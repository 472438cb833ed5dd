"""Files of other producers, against ONNX Runtime: what each node is said to be, computed by ATen, gives the same."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bitwright.quant.onnx_import import ImportedModel, graph_from_onnx

Run = Callable[..., list[np.ndarray]]
FLOAT = TensorProto.FLOAT
X = (1, 4, 8, 10)


def _running() -> ModuleType:
    spec = importlib.util.spec_from_file_location("onnx_import_running", Path(__file__).with_name("running.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUNNING: Any = _running()


def table(name: str, values: Any, dtype: Any = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def random(name: str, *shape: int) -> TensorProto:
    return table(name, np.random.default_rng(len(name)).standard_normal(shape))


class Maker:
    """Writes nodes one behind the other; numbers become constants."""

    def __init__(self, shape: Sequence[int] = X, opset: int = 20) -> None:
        self.shape, self.opset = tuple(shape), opset
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.outputs: list[str] = []

    def __call__(self, op: str, *inputs: Any, results: int = 1, domain: str = "", **attributes: Any) -> Any:
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        outputs = [f"v{len(self.nodes)}_{i}" for i in range(results)]
        self.nodes.append(helper.make_node(op, names, outputs, name=f"n{len(self.nodes)}", domain=domain, **attributes))
        return outputs[0] if results == 1 else outputs

    def constant(self, value: Any) -> str:
        if isinstance(value, TensorProto):
            tensor = value
        else:
            array = np.asarray(value)
            tensor = table(f"c{len(self.tensors)}", array, np.float32 if array.dtype.kind == "f" else np.int64)
        self.tensors.append(tensor)
        return tensor.name

    def model(self, *outputs: str) -> ModelProto:
        graph = helper.make_graph(
            self.nodes, "foreign", [helper.make_tensor_value_info("x", FLOAT, self.shape)],
            [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs], self.tensors,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)
        return onnx.shape_inference.infer_shapes(model)


def build(case: Callable[[Maker], Any], folder: Path, **settings: Any) -> tuple[Path, ImportedModel]:
    maker = Maker(**settings)
    made = case(maker)
    outputs = [made] if isinstance(made, str) else list(made)
    path = folder / "model.onnx"
    onnx.save(maker.model(*outputs), path)
    return path, graph_from_onnx(path)


def agree(path: Path, imported: ImportedModel, run_onnx: Run, shape: Sequence[int] = X, scale: float = 1.0) -> None:
    assert not imported.kept
    feeds = {"x": (scale * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)}
    for ours, theirs in zip(RUNNING.run_graph(imported.graph, feeds), run_onnx(path, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


# --- one operator: (name in ATen, how ONNX says it) ---

ONE: list[tuple[str, Callable[[Maker], Any]]] = [
    ("conv2d", lambda m: m("Conv", "x", random("w", 6, 2, 3, 3), random("b", 6), group=2, strides=[2, 1])),
    ("conv2d", lambda m: m("Conv", "x", random("w", 4, 4, 3, 2), auto_pad="SAME_UPPER", strides=[1, 1])),
    ("conv_transpose2d", lambda m: m("ConvTranspose", "x", random("w", 4, 3, 3, 3), strides=[2, 2], pads=[1] * 4)),
    ("max_pool2d", lambda m: m("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)),
    ("avg_pool2d", lambda m: m("AveragePool", "x", kernel_shape=[3, 3], pads=[1] * 4)),
    ("adaptive_avg_pool2d", lambda m: m("GlobalAveragePool", "x")),
    ("adaptive_avg_pool2d", lambda m: m("ReduceMean", "x", [2, 3])),
    ("mean", lambda m: m("ReduceMean", "x", [-1], keepdims=0)),
    ("sum", lambda m: m("ReduceSum", "x", [1, 2])),
    ("amax", lambda m: m("ReduceMax", "x", [3])),
    ("linalg_vector_norm", lambda m: m("ReduceL2", "x", [1])),
    ("argmax", lambda m: m("ArgMax", "x", axis=1, keepdims=0)),
    ("topk", lambda m: m("TopK", "x", [3], results=2, axis=-1)),
    ("cumsum", lambda m: m("CumSum", "x", np.int64(2))),
    ("hardtanh", lambda m: m("Clip", "x", np.float32(-0.5), np.float32(0.5))),
    ("relu", lambda m: m("Clip", "x", np.float32(0))),
    ("clamp", lambda m: m("Clip", "x", "", np.float32(0.25))),
    ("leaky_relu", lambda m: m("LeakyRelu", "x", alpha=0.2)),
    ("elu", lambda m: m("Elu", "x", alpha=0.7)),
    ("hardsigmoid", lambda m: m("HardSigmoid", "x", alpha=1 / 6, beta=0.5)),
    ("prelu", lambda m: m("PRelu", "x", m("Unsqueeze", random("s", 4), [1, 2]))),
    ("softmax", lambda m: m("Softmax", "x", axis=1)),
    ("mul", lambda m: m("Mul", "x", np.float32(3))),
    ("rsub", lambda m: m("Sub", np.float32(1), "x")),
    ("pow", lambda m: m("Pow", "x", np.float32(2))),
    ("div", lambda m: m("Div", np.float32(2), "x")),
    ("batch_norm", lambda m: m("BatchNormalization", "x", *(table(k, [1, 2, 3, 4]) for k in "abcd"))),
    ("layer_norm", lambda m: m("LayerNormalization", "x", random("w", 10), random("b", 10))),
    ("instance_norm", lambda m: m("InstanceNormalization", "x", random("w", 4), random("b", 4))),
    ("reshape", lambda m: m("Reshape", "x", [0, -1, 5])),
    ("flatten", lambda m: m("Flatten", "x")),
    ("permute", lambda m: m("Transpose", "x", perm=[0, 2, 3, 1])),
    ("unsqueeze", lambda m: m("Unsqueeze", "x", [1])),
    ("squeeze", lambda m: m("Squeeze", "x", [0])),
    ("expand", lambda m: m("Expand", "x", [3, 4, 8, 10])),
    ("repeat", lambda m: m("Tile", "x", [1, 2, 1, 1])),
    ("cat", lambda m: m("Concat", "x", "x", axis=1)),
    ("cat", lambda m: m("Concat", "x", axis=1)),
    ("split_with_sizes", lambda m: m("Split", "x", [3, 5], results=2, axis=2)),
    ("slice", lambda m: m("Slice", "x", [1], [-1], [3], [2])),
    ("flip", lambda m: m("Slice", "x", [-1], [np.iinfo(np.int64).min], [3], [-1])),
    ("select", lambda m: m("Gather", "x", np.int64(-2), axis=2)),
    ("index_select", lambda m: m("Gather", "x", np.array([3, 0, 3]), axis=1)),
    ("index", lambda m: m("Gather", "x", np.array([[3, 0], [1, 1]]), axis=3)),
    ("gather", lambda m: m("GatherElements", "x", np.zeros((1, 4, 8, 3), np.int64), axis=3)),
    ("constant_pad_nd", lambda m: m("Pad", "x", [0, 0, 1, 2, 0, 0, 0, 3], np.float32(0.5))),
    ("pad", lambda m: m("Pad", "x", [0, 0, 1, 2, 0, 0, 0, 3], mode="reflect")),
    ("pixel_shuffle", lambda m: m("DepthToSpace", "x", blocksize=2, mode="CRD")),
    ("triu", lambda m: m("Trilu", "x", np.int64(1))),
    ("upsample_nearest2d", lambda m: m("Resize", "x", "", "", [1, 4, 16, 30],
                                       coordinate_transformation_mode="asymmetric", nearest_mode="floor")),
    ("upsample_bilinear2d", lambda m: m("Resize", "x", "", np.float32([1, 1, 2, 1.5]), mode="linear")),
    ("grid_sampler", lambda m: m("GridSample", "x", random("g", 1, 3, 3, 2), align_corners=1)),
    ("where", lambda m: m("Where", m.constant(table("k", np.arange(10) % 2 == 0, bool)), "x", np.float32(-1))),
    ("einsum", lambda m: m("Einsum", "x", "x", equation="bchw,bdhw->bc")),  # sums a letter of one operand away
    ("einsum", lambda m: m("Einsum", "x", equation="bchw->bwhc")),
    ("erf", lambda m: m("Erf", "x")),
]  # fmt: skip


@pytest.mark.parametrize(("op", "case"), ONE, ids=[f"{i}-{op}" for i, (op, _) in enumerate(ONE)])
def test_an_operator(op: str, case: Callable[[Maker], Any], tmp_path: Path, run_onnx: Run) -> None:
    path, imported = build(case, tmp_path)
    assert [node.op for node in imported.graph.nodes] == [op]
    agree(path, imported, run_onnx)


SUMS = [
    ("bchw,bchv->bcwv", 4 * 8 * 10 * 10),
    ("bchw,bdhw->bcd", 4 * 4 * 8 * 10),
    ("bchw,bcvw->bchv", 4 * 8 * 8 * 10),
    ("bchw,bdhw->dbc", 4 * 4 * 8 * 10),  # the result's axes in another order
    ("bchw, bchw -> bh", 4 * 8 * 10),  # a row by a column
]


@pytest.mark.parametrize(("equation", "macs"), SUMS, ids=[equation for equation, _ in SUMS])
def test_an_einstein_sum_of_two_is_a_product_of_matrices(
    equation: str, macs: int, tmp_path: Path, run_onnx: Run
) -> None:
    path, imported = build(lambda m: m("Einsum", "x", "x", equation=equation), tmp_path)
    ops = [node.op for node in imported.graph.nodes]
    assert ops.count("matmul") == 1 and set(ops) <= {"matmul", "bmm", "permute", "reshape"}
    assert sum(map(imported.graph.macs, imported.graph.nodes)) == macs
    agree(path, imported, run_onnx)


# --- written out, as older exporters and other frameworks do ---


def gelu_by_division(m: Maker) -> str:
    erf = m("Erf", m("Div", "x", np.float32(np.sqrt(2))))
    return str(m("Mul", m("Mul", "x", m("Add", erf, np.float32(1))), np.float32(0.5)))


def gelu_half_first(m: Maker) -> str:
    erf = m("Erf", m("Mul", "x", np.float32(np.sqrt(0.5))))
    return str(m("Mul", m("Mul", np.float32(0.5), "x"), m("Add", np.float32(1), erf)))


def gelu_by_tanh(m: Maker) -> str:
    cubic = m("Add", "x", m("Mul", m("Pow", "x", np.float32(3)), np.float32(0.044715)))
    tanh = m("Tanh", m("Mul", cubic, np.float32(np.sqrt(2 / np.pi))))
    return str(m("Mul", m("Mul", "x", m("Add", tanh, np.float32(1))), np.float32(0.5)))


def hardswish(m: Maker) -> str:
    clipped = m("Clip", m("Add", "x", np.float32(3)), np.float32(0), np.float32(6))
    return str(m("Div", m("Mul", "x", clipped), np.float32(6)))


def layer_norm(m: Maker) -> str:
    centered = m("Sub", "x", m("ReduceMean", "x", [-1]))
    variance = m("ReduceMean", m("Pow", centered, np.float32(2)), [-1])
    root = m("Sqrt", m("Add", variance, np.float32(1e-5)))
    return str(m("Add", m("Mul", m("Div", centered, root), random("w", 10)), random("b", 10)))


def rms_norm(m: Maker) -> str:
    mean = m("ReduceMean", m("Mul", "x", "x"), [-1])
    inverse = m("Reciprocal", m("Sqrt", m("Add", mean, np.float32(1e-5))))
    return str(m("Mul", m("Mul", "x", inverse), random("w", 10)))


def group_norm(m: Maker) -> str:
    flat = m("Reshape", "x", [0, 2, -1])
    normed = m("InstanceNormalization", flat, table("one", [1, 1]), table("zero", [0, 0]))
    back = m("Reshape", normed, [1, 4, 8, 10])
    scaled = m("Mul", back, m("Unsqueeze", random("w", 4), [1, 2]))
    return str(m("Add", scaled, m("Unsqueeze", random("b", 4), [1, 2])))


def rows_of_gemm(m: Maker) -> str:
    product = m("Gemm", m("Reshape", "x", [-1, 10]), random("w", 6, 10), random("b", 6), transB=1)
    return str(m("Reshape", product, [1, 4, 8, 6]))


def relu6_by_bounds(m: Maker) -> str:
    return str(m("Min", m("Max", "x", np.float32(0)), np.float32(6)))


WRITTEN_OUT: list[tuple[str, Callable[[Maker], Any]]] = [
    ("gelu", gelu_by_division),
    ("gelu", gelu_half_first),
    ("gelu", gelu_by_tanh),
    ("silu", lambda m: m("Mul", "x", m("Sigmoid", "x"))),
    ("mish", lambda m: m("Mul", "x", m("Tanh", m("Softplus", "x")))),
    ("hardswish", hardswish),
    ("hardswish", lambda m: m("Mul", "x", m("HardSigmoid", "x", alpha=1 / 6, beta=0.5))),
    ("hardtanh", relu6_by_bounds),
    ("layer_norm", layer_norm),
    ("rms_norm", rms_norm),
    ("group_norm", group_norm),
    ("linear", lambda m: m("Add", m("MatMul", "x", random("w", 10, 6)), random("b", 6))),
    ("linear", lambda m: m("MatMul", "x", random("w", 10, 6))),
    ("linear", rows_of_gemm),
    ("rsqrt", lambda m: m("Reciprocal", m("Sqrt", "x"))),
    ("ne", lambda m: m("Not", m("Equal", "x", np.float32(0)))),
]


@pytest.mark.parametrize(("op", "case"), WRITTEN_OUT, ids=[f"{i}-{op}" for i, (op, _) in enumerate(WRITTEN_OUT)])
def test_an_operator_that_is_written_out(op: str, case: Callable[[Maker], Any], tmp_path: Path, run_onnx: Run) -> None:
    path, imported = build(case, tmp_path)
    assert [node.op for node in imported.graph.nodes] == [op]
    if op != "rsqrt":  # NaN on both sides
        agree(path, imported, run_onnx, scale=4.0)


def half_of_a_gelu_leaves(m: Maker) -> tuple[str, str]:
    erf = m("Erf", m("Div", "x", np.float32(np.sqrt(2))))
    return m("Mul", m("Mul", "x", m("Add", erf, np.float32(1))), np.float32(0.5)), erf


def another_slope(m: Maker) -> str:
    erf = m("Erf", m("Div", "x", np.float32(1.5)))
    return str(m("Mul", m("Mul", "x", m("Add", erf, np.float32(1))), np.float32(0.5)))


def gate_of_another_value(m: Maker) -> str:
    return str(m("Mul", "x", m("Sigmoid", m("Relu", "x"))))


def norm_with_another_mean(m: Maker) -> str:
    centered = m("Sub", "x", m("ReduceMean", "x", [1]))
    variance = m("ReduceMean", m("Pow", centered, np.float32(2)), [-1])
    return str(m("Div", centered, m("Sqrt", m("Add", variance, np.float32(1e-5)))))


@pytest.mark.parametrize(
    ("case", "absent"),
    [(half_of_a_gelu_leaves, "gelu"), (another_slope, "gelu"), (gate_of_another_value, "silu"),
     (norm_with_another_mean, "layer_norm")],
)  # fmt: skip
def test_what_only_looks_like_a_pattern_stays_as_it_is(
    case: Callable[[Maker], Any], absent: str, tmp_path: Path, run_onnx: Run
) -> None:
    path, imported = build(case, tmp_path)
    assert absent not in [node.op for node in imported.graph.nodes]
    agree(path, imported, run_onnx)


# --- several calls for one node ---


@pytest.mark.parametrize(
    ("ops", "case"),
    [
        (["constant_pad_nd", "conv2d"], lambda m: m("Conv", "x", random("w", 4, 4, 3, 3), pads=[0, 1, 2, 1])),
        (["constant_pad_nd", "max_pool2d"], lambda m: m("MaxPool", "x", kernel_shape=[2, 2], pads=[0, 0, 1, 1])),
        (["slice", "slice"], lambda m: m("Slice", "x", [1, 2], [7, 9], [2, 3])),
        (["reshape", "permute", "reshape"], lambda m: m("DepthToSpace", "x", blocksize=2)),
        (["reshape", "permute", "reshape"], lambda m: m("SpaceToDepth", "x", blocksize=2)),
        (["mul", "add", "hardtanh"], lambda m: m("HardSigmoid", "x")),
        (["maximum", "maximum"], lambda m: m("Max", "x", m.constant(random("k", 10)), m.constant(random("kk", 8, 1)))),
    ],
)
def test_a_node_that_is_several_calls(
    ops: list[str], case: Callable[[Maker], Any], tmp_path: Path, run_onnx: Run
) -> None:
    path, imported = build(case, tmp_path)
    assert [node.op for node in imported.graph.nodes] == ops
    agree(path, imported, run_onnx)


def test_old_opsets_keep_bounds_and_axes_in_attributes(tmp_path: Path, run_onnx: Run) -> None:
    def case(m: Maker) -> Any:
        x = m("Clip", "x", min=0.0, max=6.0)
        x = m("Slice", x, starts=[1], ends=[3], axes=[1])
        x = m("Unsqueeze", m("Squeeze", x, axes=[0]), axes=[0])
        return m("Pad", m("ReduceMean", x, axes=[2], keepdims=1), pads=[0, 0, 0, 1, 0, 0, 0, 1], value=2.0)

    path, imported = build(case, tmp_path, opset=9)
    assert [node.op for node in imported.graph.nodes] == [
        "hardtanh", "slice", "squeeze", "unsqueeze", "mean", "constant_pad_nd",
    ]  # fmt: skip
    agree(path, imported, run_onnx)


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_recurrent_layers(op: str, tmp_path: Path) -> None:
    gates = {"LSTM": 4, "GRU": 3}[op]

    def case(m: Maker) -> Any:
        weights = random("w", 1, gates * 6, 10), random("r", 1, gates * 6, 6), random("b", 1, 2 * gates * 6)
        return m(op, "x", *weights, results=2, hidden_size=6)

    _, imported = build(case, tmp_path, shape=(7, 2, 10))
    node = imported.graph.nodes[0]
    assert node.op == op.lower()
    assert imported.graph.tensors[node.outputs[0]].shape == (7, 1, 2, 6)
    assert node.attributes["hidden_size"] == 6


def test_names_of_nodes_give_module_paths(tmp_path: Path) -> None:
    maker = Maker()
    maker.nodes.append(helper.make_node("Relu", ["x"], ["y"], name="/features/features.0/act/Relu"))
    onnx.save(maker.model("y"), tmp_path / "model.onnx")
    node = graph_from_onnx(tmp_path / "model.onnx").graph.nodes[0]
    assert node.module_path == "features.features.0.act"
    assert str(node.outputs[0]) == "features.features.0.act@0.0.0"


def test_our_networks_compute_the_same(example: Any, tmp_path: Path, run_onnx: Run) -> None:
    """By ATen from the file's graph, by ONNX Runtime from the file."""
    from bitwright.quant.export.onnx_builder import value_name
    from bitwright.quant.export.onnx_qdq import export_float

    path = export_float(example.captured.graph, tmp_path / "model.onnx")
    refs = example.captured.graph.inputs
    feeds = {value_name(ref): arg.numpy() for ref, arg in zip(refs, example.args, strict=True)}
    imported = graph_from_onnx(path)
    for ours, theirs in zip(RUNNING.run_graph(imported.graph, feeds), run_onnx(path, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
