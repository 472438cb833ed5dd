"""Files that are broken, hostile or newer than this release: refused by name, without a traceback or an allocation."""

import itertools
import os
import re
import resource
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bitwright.quant.errors import InputError
from bitwright.quant.onnx_import import graph_from_onnx

FLOAT = TensorProto.FLOAT


def model_of(
    nodes: Sequence[NodeProto],
    *,
    inputs: Sequence[tuple[str, Any]] = (("x", [1, 3, 8, 8]),),
    outputs: Sequence[str] = ("y",),
    tensors: Sequence[TensorProto] = (),
    opset: int = 20,
    **more: Any,
) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        list(tensors),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9, **more)


def relu() -> ModelProto:
    return model_of([helper.make_node("Relu", ["x"], ["y"], name="act")])


def conv(weight: TensorProto) -> ModelProto:
    return model_of([helper.make_node("Conv", ["x", "w"], ["y"], name="conv")], tensors=[weight])


def weight(shape: tuple[int, ...] = (4, 3, 3, 3)) -> TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), "w")


@pytest.fixture
def save(tmp_path: Path) -> Callable[[ModelProto | bytes], Path]:
    def write(model: ModelProto | bytes) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    return write


Save = Callable[[ModelProto | bytes], Path]


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: {message}$"):
        graph_from_onnx(path)


# --- no ONNX model ---


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "model.onnx", "no such file")


@pytest.mark.parametrize("content", [b"PK\x03\x04 not a model at all", b"\xff" * 100, b"<html></html>"])
def test_a_file_of_another_kind(content: bytes, save: Save) -> None:
    with pytest.raises(InputError, match=r"model.onnx: not an ONNX model"):
        graph_from_onnx(save(content))


def test_an_empty_file(save: Save) -> None:
    refused(save(b""), "not an ONNX model: it holds no graph")


def test_a_truncated_file(save: Save) -> None:
    whole = conv(weight((64, 3, 3, 3))).SerializeToString()
    path = save(whole[: len(whole) // 2])
    refused(path, r"not an ONNX model, or a truncated one; export it again \(.*\)")


def test_every_truncation_is_refused_or_read(save: Save) -> None:
    whole = conv(weight()).SerializeToString()
    for size in range(len(whole)):
        path = save(whole[:size])
        try:
            graph_from_onnx(path)
        except InputError as error:
            assert str(error).startswith(str(path))


def test_a_name_that_is_no_text(save: Save) -> None:
    content = relu().SerializeToString().replace(b"act", b"a\xc5\x00")
    refused(save(content), r"the name b'a\\xc5\\x00' is no UTF-8 text; the file is damaged")


# --- versions ---


def test_an_ir_version_of_the_future(save: Save) -> None:
    model = relu()
    model.ir_version = 99
    refused(save(model), rf"IR version 99; onnx {onnx.__version__} reads 3 to {onnx.IR_VERSION}")


@pytest.mark.parametrize("opset", [0, -3, 999])
def test_an_opset_that_does_not_exist(opset: int, save: Save) -> None:
    model = relu()
    model.opset_import[0].version = opset
    newest = onnx.defs.onnx_opset_version()
    refused(save(model), rf"opset {opset}; onnx {onnx.__version__} knows 1 to {newest}")


def test_no_opset(save: Save) -> None:
    model = relu()
    del model.opset_import[:]
    refused(save(model), "uses standard operators and imports no opset; export it again")


def test_two_opsets_of_one_domain(save: Save) -> None:
    model = relu()
    model.opset_import.append(helper.make_opsetid("ai.onnx", 11))
    refused(save(model), "domain 'ai.onnx' is imported as 20 and 11")


# --- wiring ---


def test_a_value_that_nothing_makes(save: Save) -> None:
    path = save(model_of([helper.make_node("Add", ["x", "lost"], ["y"], name="sum")]))
    refused(path, r"node 'sum' \(Add\) reads 'lost', which nothing makes")


def test_an_output_that_nothing_makes(save: Save) -> None:
    refused(save(model_of([helper.make_node("Relu", ["x"], ["z"])])), "output 'y' is made by nothing")


def test_a_value_that_is_made_twice(save: Save) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="a"), helper.make_node("Abs", ["x"], ["y"], name="b")]
    refused(save(model_of(nodes)), r"value 'y' is made twice: by node 'a' \(Relu\) and by node 'b' \(Abs\)")


def test_an_input_that_is_made_again(save: Save) -> None:
    path = save(model_of([helper.make_node("Relu", ["x"], ["x"], name="a")], outputs=["x"]))
    refused(path, r"value 'x' is made twice: by an input or initializer and by node 'a' \(Relu\)")


def test_two_inputs_of_one_name(save: Save) -> None:
    path = save(model_of([helper.make_node("Relu", ["x"], ["y"])], inputs=[("x", [1]), ("x", [2])]))
    refused(path, "input 'x' stands there twice")


def test_two_initializers_of_one_name(save: Save) -> None:
    model = conv(weight())
    model.graph.initializer.append(weight())
    refused(save(model), "initializer 'w' stands there twice")


def test_nodes_in_a_circle(save: Save) -> None:
    nodes = [
        helper.make_node("Add", ["x", "c"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
        helper.make_node("Abs", ["b"], ["c"], name="third"),
        helper.make_node("Neg", ["c"], ["y"], name="outside"),
    ]
    refused(
        save(model_of(nodes)),
        r"the nodes node 'first' \(Add\) -> node 'second' \(Relu\) -> node 'third' \(Abs\) -> node 'first' \(Add\) "
        "wait for each other in a circle",
    )


def test_nodes_out_of_order_are_put_in_order(save: Save) -> None:
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Abs", ["x"], ["a"])]
    assert [node.op for node in graph_from_onnx(save(model_of(nodes))).graph.nodes] == ["abs", "relu"]


# --- tensors ---


def test_raw_data_that_do_not_fit_the_shape(save: Save) -> None:
    tensor = weight()
    tensor.raw_data = tensor.raw_data[:-4]
    refused(
        save(conv(tensor)),
        r"initializer 'w': holds 428 bytes of data; its shape \[4, 3, 3, 3\] of float32 needs 432 bytes; "
        "the file is truncated or was edited",
    )


def test_values_that_do_not_fit_the_shape(save: Save) -> None:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[2, 2], float_data=[1.0, 2.0, 3.0])
    refused(
        save(conv(tensor)),
        r"initializer 'w': holds 3 values of data; its shape \[2, 2\] of float32 needs 4; "
        "the file is truncated or was edited",
    )


def test_a_gigantic_shape_in_a_small_file_allocates_nothing(save: Save) -> None:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[1 << 40, 1 << 20], raw_data=b"\0" * 64)
    path = save(conv(tensor))
    tracemalloc.start()
    refused(path, r"initializer 'w': holds 64 bytes of data; its shape \[.*\] of float32 needs \d+ bytes; .*")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_shape_with_a_negative_dimension(save: Save) -> None:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4, -3])
    refused(save(conv(tensor)), r"initializer 'w': shape \[4, -3\] has a negative dimension")


def test_an_absurd_rank(save: Save) -> None:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[1] * 4000, float_data=[1.0])
    refused(save(conv(tensor)), "initializer 'w': 4000 dimensions; at most 32")


def test_an_element_type_that_does_not_exist(save: Save) -> None:
    tensor = TensorProto(name="w", data_type=99, dims=[1])
    refused(save(conv(tensor)), "initializer 'w': element type 99; ONNX has no such type")


def test_a_tensor_inside_an_attribute_is_checked_too(save: Save) -> None:
    node = helper.make_node("Constant", [], ["y"], name="table")
    value = TensorProto(data_type=FLOAT, dims=[1 << 40], raw_data=b"\0" * 8)
    node.attribute.append(AttributeProto(name="value", type=AttributeProto.TENSOR, t=value))
    with pytest.raises(InputError, match="node 'table', attribute 'value': holds 8 bytes of data"):
        graph_from_onnx(save(model_of([node])))


# --- shapes that would be large if somebody computed them ---


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("ConstantOfShape", ["size"], ["t"]),
        helper.make_node("Expand", ["one", "size"], ["t"]),
        helper.make_node("Tile", ["one", "size"], ["t"]),
        helper.make_node("RandomUniform", [], ["t"], shape=[1 << 20, 1 << 20]),
    ],
    ids=lambda node: node.op_type,
)
def test_constants_that_would_be_gigantic_stay_operators(node: NodeProto, save: Save) -> None:
    size = numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "size")
    one = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")
    path = save(model_of([node, helper.make_node("ReduceSum", ["t"], ["y"])], tensors=[size, one]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    graph = graph_from_onnx(path).graph
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
    assert len(graph.nodes) == 2
    assert graph.tensors[graph.nodes[0].outputs[0]].shape == (1 << 20, 1 << 20)


def test_a_claimed_shape_is_not_believed_where_memory_is_spent(save: Save) -> None:
    """The file says that the result is a single number, so that it would be computed at once."""
    size = numpy_helper.from_array(np.array([1 << 40], np.int64), "size")
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["t"]),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    model = model_of(nodes, tensors=[size])
    model.graph.value_info.append(helper.make_tensor_value_info("t", FLOAT, [1]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    graph_from_onnx(save(model))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_an_input_of_gigantic_shape_is_only_a_shape(save: Save) -> None:
    path = save(model_of([helper.make_node("Relu", ["x"], ["y"])], inputs=[("x", [1 << 40, 1 << 22])]))
    graph = graph_from_onnx(path).graph
    assert graph.tensors[graph.outputs[0]].elements == 1 << 62


# --- weights beside the file ---


def external(location: str, **entries: str) -> ModelProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4, 3, 3, 3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return conv(tensor)


def test_external_data_are_read_when_asked_for(save: Save, tmp_path: Path) -> None:
    values = np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.bin").write_bytes(b"\0" * 16 + values.tobytes())
    graph = graph_from_onnx(save(external("weights/w.bin", offset="16", length="432"))).graph
    np.testing.assert_array_equal(graph.array(graph.nodes[0].tensors[1]), values)
    assert graph.macs(graph.nodes[0]) == 4 * 6 * 6 * 27


def test_missing_external_data(save: Save, tmp_path: Path) -> None:
    refused(
        save(external("w.bin")),
        rf"initializer 'w': external data at 'w.bin': no such file in {tmp_path}; copy it beside the model",
    )


@pytest.mark.parametrize(
    "location", ["../w.bin", "a/../../w.bin", "/etc/passwd", "C:\\w.bin", "..\\w.bin", "\\\\host\\w.bin", "", "a\0b"]
)
def test_external_data_outside_the_folder(location: str, save: Save, tmp_path: Path) -> None:
    (tmp_path.parent / "w.bin").write_bytes(b"\0" * 432)
    with pytest.raises(InputError, match=r"initializer 'w': external data at .*; only files in the model's own folder"):
        graph_from_onnx(save(external(location)))


@pytest.mark.parametrize("link", ["w.bin", "folder/w.bin"])
def test_external_data_behind_a_link(link: str, save: Save, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"outside-{tmp_path.name}"
    outside.mkdir()
    (outside / "w.bin").write_bytes(b"\0" * 432)
    first = tmp_path / link.split("/")[0]
    os.symlink(outside if "/" in link else outside / "w.bin", first)
    refused(save(external(link)), f"initializer 'w': external data at '{link}' is a link; only plain files are read")


def test_external_data_that_are_too_short(save: Save, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 100)
    refused(
        save(external("w.bin", offset="10")),
        "initializer 'w': bytes 10 to 442 of 'w.bin', which has 100; the file of the weights is truncated",
    )


@pytest.mark.parametrize(
    ("key", "value"), [("offset", "-4"), ("offset", "many"), ("length", "1e3"), ("offset", "9" * 30)]
)
def test_external_data_at_no_number(key: str, value: str, save: Save, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 432)
    refused(
        save(external("w.bin", **{key: value})),
        f"initializer 'w': external data {key} = '{value}'; expected a number of bytes",
    )


def test_external_data_of_another_length(save: Save, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 432)
    refused(
        save(external("w.bin", length="400")),
        r"initializer 'w': holds 400 external bytes of data; its shape \[4, 3, 3, 3\] of float32 needs 432 bytes; "
        "the file is truncated or was edited",
    )


def test_a_long_chain_is_no_deep_recursion(save: Save) -> None:
    names = ["x", *(f"v{i}" for i in range(3000)), "y"]
    nodes = [helper.make_node("Mul", [a, "c"], [b]) for a, b in itertools.pairwise(names)]
    tensor = numpy_helper.from_array(np.array(1.5, np.float32), "c")
    assert len(graph_from_onnx(save(model_of(nodes, tensors=[tensor]))).graph.nodes) == len(nodes)


# --- what is no error: unknown operators, control flow, open shapes ---


def test_an_operator_of_a_foreign_domain_is_a_node_of_its_name(save: Save) -> None:
    nodes = [
        helper.make_node("Voxelize", ["x"], ["v"], domain="com.example", size=3, mode="mean"),
        helper.make_node("Relu", ["v"], ["y"]),
    ]
    model = model_of(nodes)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    imported = graph_from_onnx(save(model))
    node = imported.graph.nodes[0]
    assert node.op == "com.example::Voxelize"
    assert node.attributes == {"size": 3, "mode": "mean"}
    assert imported.kept == {node.name: "domain 'com.example'"}
    assert imported.graph.tensors[node.outputs[0]].shape == (None,)


def test_a_function_of_the_model_is_a_node_of_its_name(save: Save) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("local", "Block", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    model = model_of([helper.make_node("Block", ["x"], ["y"], domain="local")], functions=[function])
    model.opset_import.append(helper.make_opsetid("local", 1))
    assert [node.op for node in graph_from_onnx(save(model)).graph.nodes] == ["local::Block"]


def test_control_flow_is_a_node_that_reads_what_its_bodies_read(save: Save) -> None:
    result = helper.make_tensor_value_info("r", FLOAT, None)
    then = helper.make_graph([helper.make_node("Relu", ["h"], ["r"])], "then", [], [result])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["r"])], "else", [], [result])
    nodes = [
        helper.make_node("Abs", ["x"], ["h"]),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], name="branch", then_branch=then, else_branch=other),
    ]
    imported = graph_from_onnx(save(model_of(nodes)))
    branch = imported.graph.by_name["branch"]
    assert branch.op == "If"
    producers = [imported.graph.producers.get(ref) for ref in branch.tensors]
    assert [node.op if node else "input" for node in producers] == ["to", "input", "abs"]
    assert imported.kept["branch"] == "which of its graphs runs, and how often, is decided while it runs"


def test_a_body_that_reads_from_nowhere(save: Save) -> None:
    result = helper.make_tensor_value_info("r", FLOAT, None)
    body = helper.make_graph([helper.make_node("Relu", ["lost"], ["r"])], "then", [], [result])
    nodes = [
        helper.make_node("Cast", ["x"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], name="branch", then_branch=body, else_branch=body),
    ]
    refused(save(model_of(nodes)), r"node 'branch' \(If\) reads 'lost', which nothing makes")


def test_a_node_whose_parts_do_not_fit_is_kept_with_the_reason(save: Save) -> None:
    imported = graph_from_onnx(save(model_of([helper.make_node("Transpose", ["x"], ["y"], name="t", perm=[0, 7])])))
    assert [node.op for node in imported.graph.nodes] == ["Transpose"]
    assert imported.kept == {"t": "a permutation of other axes than its input has"}


def test_open_dimensions_are_none(save: Save) -> None:
    model = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])], inputs=[("x", ["batch", 3, "height", 8])], tensors=[weight()]
    )
    graph = graph_from_onnx(save(model)).graph
    assert graph.tensors[graph.inputs[0]].shape == (None, 3, None, 8)
    assert graph.tensors[graph.outputs[0]].shape == (None, 4, None, 6)


def test_shape_arithmetic_falls_away(save: Save) -> None:
    """What old exporters write for `x.view(x.size(0), -1)`."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["size"], axis=0),
        helper.make_node("Reshape", ["x", "size"], ["y"]),
    ]
    tensors = [
        numpy_helper.from_array(np.array(0), "zero"),
        numpy_helper.from_array(np.array([0]), "axes"),
        numpy_helper.from_array(np.array([-1]), "rest"),
    ]
    for first in (1, "batch"):
        graph = graph_from_onnx(save(model_of(nodes, inputs=[("x", [first, 3, 8, 8])], tensors=tensors))).graph
        assert [node.op for node in graph.nodes] == ["reshape"]
        assert graph.tensors[graph.outputs[0]].shape == (1 if first == 1 else None, 192)


# --- shapes that contradict each other ---


def tensor(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


CONTRADICTIONS: list[tuple[NodeProto, list[TensorProto], list[int], str]] = [
    (helper.make_node("Conv", ["x", "w"], ["y"], name="n"), [tensor("w", 4, 5, 3, 3)], [1, 3, 8, 8],
     "its input has 3 channels, its weight [4, 5, 3, 3] takes 5"),
    (helper.make_node("Conv", ["x", "w"], ["y"], name="n", group=2), [tensor("w", 4, 2, 3, 3)], [1, 6, 8, 8],
     "its input has 6 channels, its weight [4, 2, 3, 3] takes 4 in 2 groups"),
    (helper.make_node("Conv", ["x", "w", "b"], ["y"], name="n"), [tensor("w", 4, 3, 3, 3), tensor("b", 7)],
     [1, 3, 8, 8], "its weight makes 4 channels, its bias has the shape [7]"),
    (helper.make_node("Conv", ["x", "w"], ["y"], name="n", dilations=[1, 4]), [tensor("w", 4, 3, 3, 3)], [1, 3, 8, 8],
     "its kernel reaches over 9 of 8 padded pixels"),
    (helper.make_node("Conv", ["x", "w"], ["y"], name="n"), [tensor("w", 4, 3, 3)], [1, 3, 8, 8],
     "its input has the shape [1, 3, 8, 8], its weight [4, 3, 3]"),
    (helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="n"), [tensor("w", 5, 4, 3, 3)], [1, 3, 8, 8],
     "its input has 3 channels, its weight [5, 4, 3, 3] takes 5"),
    (helper.make_node("Gemm", ["x", "w"], ["y"], name="n", transB=1), [tensor("w", 4, 5)], [2, 3],
     "it multiplies 3 columns with 5 rows"),
    (helper.make_node("MatMul", ["x", "w"], ["y"], name="n"), [tensor("w", 5, 4)], [2, 3],
     "it multiplies 3 columns with 5 rows"),
    (helper.make_node("MatMul", ["x", "w"], ["y"], name="n"), [tensor("w", 3, 3, 4)], [2, 2, 3],
     "the shapes [2] and [3] do not broadcast"),
    (helper.make_node("Add", ["x", "w"], ["y"], name="n"), [tensor("w", 5, 1)], [1, 3, 8],
     "the shapes [1, 3, 8] and [5, 1] do not broadcast"),
    (helper.make_node("BatchNormalization", ["x", "w", "w", "w", "w"], ["y"], name="n"), [tensor("w", 7)], [1, 3, 8, 8],
     "its input has 3 channels, its scale the shape [7]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("node", "tensors", "shape", "says"),
    CONTRADICTIONS,
    ids=[f"{i}-{case[0].op_type}" for i, case in enumerate(CONTRADICTIONS)],
)
def test_operands_that_contradict_each_other(
    node: NodeProto, tensors: list[TensorProto], shape: list[int], says: str, save: Save
) -> None:
    path = save(model_of([node], inputs=[("x", shape)], tensors=tensors))
    refused(path, re.escape(f"node 'n' ({node.op_type}): {says}; the file contradicts itself, export it again"))


@pytest.mark.parametrize(("scale", "spelled"), [(0.0, "0"), (-0.5, "-0.5"), (np.inf, "inf"), (np.nan, "nan")])
@pytest.mark.parametrize("of", ["an activation", "a weight's second channel"])
def test_a_scale_that_none_can_be(scale: float, spelled: str, of: str, save: Save) -> None:
    code = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="n")
    coded = [code, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    tensors = [numpy_helper.from_array(np.float32(scale), "s"), numpy_helper.from_array(np.uint8(3), "z")]
    if of != "an activation":
        coded = [
            helper.make_node("DequantizeLinear", ["w", "s"], ["v"], name="n", axis=0),
            helper.make_node("Conv", ["x", "v"], ["y"]),
        ]
        tensors = [
            numpy_helper.from_array(np.ones((2, 3, 1, 1), np.int8), "w"),
            numpy_helper.from_array(np.array([1.0, scale], np.float32), "s"),
        ]
    path = save(model_of(coded, tensors=tensors))
    which = "QuantizeLinear" if of == "an activation" else "DequantizeLinear"
    what = f"its scale 's' is {spelled}; a scale is a finite number above 0, quantize the network again"
    refused(path, re.escape(f"node 'n' ({which}): {what}"))


def test_what_a_file_leaves_open_contradicts_nothing(save: Save) -> None:
    model = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])], inputs=[("x", [1, "c", "h", 2])], tensors=[weight((4, 3, 2, 2))]
    )
    assert [node.op for node in graph_from_onnx(save(model)).graph.nodes] == ["conv2d"]


def test_an_input_without_elements(save: Save) -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], inputs=[("x", [1, 3, 0, "w"])])
    refused(
        save(model),
        r"input 'x' has the shape \[1, 3, 0, \?\], which holds no element; "
        "export it with the sizes that it is to run at",
    )


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, r"is a folder; give the \.onnx file in it")
