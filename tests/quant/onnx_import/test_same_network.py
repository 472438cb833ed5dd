"""What our exporter writes of a network comes back as what capture gave: operators, tensors, names, lines, values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.graph_difference import graph_difference
from bitwright.quant.onnx_import import ImportedModel, graph_from_onnx
from bitwright.quant.scheme import QuantScheme

Example = Any  # of conftest.py

# Arguments that say nothing about what is computed at inference.
_IDLE = {"cudnn_enabled", "cudnn_enable", "momentum", "half_to_float", "dtype", "implicit", "padding_idx", "sparse",
         "scale_grad_by_freq", "scale_factors", "copy", "memory_format", "non_blocking", "layout", "device", "path",
         "pin_memory", "scale"}  # fmt: skip


def facts(graph: Graph, node: Node) -> tuple[Any, ...]:
    """Everything about a node that does not depend on how its arguments are spelled."""
    return (
        node.name,
        node.op,
        tuple(ref for ref in node.inputs if ref is not None),
        node.outputs,
        node.module_path,
        node.module_type,
        node.source,
        graph.macs(node),
    )


def tensors(graph: Graph) -> dict[TensorRef, tuple[Any, ...]]:
    used = {ref for node in graph.nodes for ref in (*node.tensors, *node.outputs)} | {*graph.inputs, *graph.outputs}
    return {ref: (graph.tensors[ref].shape, graph.tensors[ref].dtype, graph.is_constant(ref)) for ref in used}


def assert_same(theirs: Graph, ours: Graph) -> None:
    """Names the first few differences; pytest's own comparison of whole graphs would take minutes."""
    assert ours.inputs == theirs.inputs
    assert ours.outputs == theirs.outputs
    assert ours.state == theirs.state
    pairs = list(zip(theirs.nodes, ours.nodes, strict=False))
    wrong = [(was, now) for a, b in pairs if (was := facts(theirs, a)) != (now := facts(ours, b))]
    assert wrong[:1] == []
    assert len(ours.nodes) == len(theirs.nodes)
    for expected, node in pairs:
        assert_same_arguments(theirs, expected, node)
    was_tensors, now_tensors = tensors(theirs), tensors(ours)
    changed = [(ref, was_tensors.get(ref), now_tensors.get(ref)) for ref in {*was_tensors, *now_tensors}]
    assert [each for each in changed if each[1] != each[2]][:3] == []
    assert graph_difference(theirs, ours).is_empty


def assert_same_arguments(graph: Graph, expected: Node, node: Node) -> None:
    counted = expected.outputs[0] if expected.op in ("unsqueeze", "stack") else expected.tensors[0]
    rank = len(graph.tensors[counted].shape)
    ours, theirs = (plain(node.attributes, rank), plain(expected.attributes, rank))
    for name, value in theirs.items():
        if name in ("output_size",) and value is None:
            continue  # given by factors, which the file no longer has
        given = ours.get(name)
        if value == "same":
            kernel = graph.tensors[expected.tensors[1]].shape[-1] or 0
            value = "same" if kernel % 2 == 0 else kernel // 2  # an even kernel has no number for it
        same = np.allclose(given, value) if isinstance(value, float) and given is not None else given == value
        assert same, f"{expected.name}: {name} = {given!r} instead of {value!r}"


def plain(attributes: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """Arguments in one spelling: one number for all dimensions, no end, axes from the front."""
    result = {}
    for name, value in attributes.items():
        if name in _IDLE or value is None or name in ("shape", "size"):
            continue
        if isinstance(value, tuple) and value and len(set(value)) == 1 and name not in ("dim", "dims"):
            value = value[0]
        if name in ("dim", "dims", "dim0", "dim1", "start_dim", "end_dim") and rank:
            axes = tuple(axis % rank for axis in (value if isinstance(value, tuple) else (value,)))
            value = frozenset(axes) if name != "dims" else axes
        if name in ("dim0", "dim1"):
            continue  # the order of two axes that change places
        result[name] = value
    return result


def test_a_float_file_comes_back_as_it_was_captured(example: Example, tmp_path: Path) -> None:
    graph = example.captured.graph
    imported = graph_from_onnx(export_float(graph, tmp_path / "model.onnx"))
    assert imported.plan is None and not imported.kept
    assert_same(graph, imported.graph)


def test_the_weights_have_the_values_of_the_network(example: Example, tmp_path: Path) -> None:
    graph = example.captured.graph
    imported = graph_from_onnx(export_float(graph, tmp_path / "model.onnx")).graph
    for ref in tensors(graph):
        if graph.is_constant(ref):
            np.testing.assert_array_equal(imported.array(ref), graph.array(ref))


@pytest.mark.parametrize("formats", [("uint8", "int8"), ("int8", "int8"), ("int16", "int8"), ("uint8", "int4")])
def test_a_quantized_file_comes_back_with_its_plan_and_qparams(
    example: Example, formats: tuple[str, str], make_scheme: Any, tmp_path: Path
) -> None:
    quantized = example.quantized(make_scheme(*formats))
    imported = graph_from_onnx(export_onnx_qdq(quantized, tmp_path / "model.onnx"))
    assert_same(quantized.captured.graph, imported.graph)
    assert_same_plan(quantized, imported)


def test_an_fp8_file_comes_back_with_its_plan_and_qparams(example: Example, fp8: QuantScheme, tmp_path: Path) -> None:
    quantized = example.quantized(fp8)
    imported = graph_from_onnx(export_onnx_qdq(quantized, tmp_path / "model.onnx"))
    assert_same(quantized.captured.graph, imported.graph)
    assert_same_plan(quantized, imported)


def assert_same_plan(quantized: Any, imported: ImportedModel) -> None:
    plan, graph = imported.plan_by(quantized.plan.scheme), imported.graph
    read = {ref for node in graph.nodes for ref in node.tensors} | set(graph.outputs)
    written = {ref for ref in quantized.plan.activations if ref in read}
    assert set(plan.activations) == written
    assert set(plan.weights) == set(quantized.plan.weights)
    for ref, spec in {**plan.activations, **plan.weights}.items():
        expected = quantized.qparams[ref]
        assert spec.format == expected.spec.format, ref
        known = imported.qparams[ref]
        np.testing.assert_array_equal(known.scale, expected.scale.numpy())
        np.testing.assert_array_equal(known.zero_point, expected.zero_point.numpy())
        assert known.axis == expected.axis
    assert {name: bias.bias for name, bias in plan.biases.items()} == {
        name: bias.bias for name, bias in quantized.plan.biases.items()
    }
    assert plan.quantized ^ quantized.plan.quantized == frozenset()
    assert plan.kept_float.keys() >= quantized.plan.kept_float.keys()
    assert set(plan.fused) == set(quantized.plan.fused)


def test_state_comes_back_as_state(recurrent: nn.Module, tmp_path: Path) -> None:
    captured = capture(recurrent, (torch.randn(1, 4, 8, 8),))
    graph = graph_from_onnx(export_float(captured.graph, tmp_path / "model.onnx")).graph
    assert_same(captured.graph, graph)
    assert len(graph.state) == 2


def test_source_lines_come_back_with_their_text(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 3.0

    captured = capture(Scaled(), (torch.ones(2, 3),))
    node = graph_from_onnx(export_float(captured.graph, tmp_path / "model.onnx")).graph.nodes[0]
    assert node.source is not None
    assert Path(node.source.file) == Path(__file__)
    assert node.source.text == "return x * 3.0"
    assert node.attributes["other"] == 3.0


def test_without_its_provenance_a_file_still_has_the_references(tmp_path: Path) -> None:
    captured = capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()), (torch.randn(1, 3, 8, 8),))
    path = export_float(captured.graph, tmp_path / "model.onnx")
    path.with_suffix(".provenance.json").unlink()
    graph = graph_from_onnx(path).graph
    assert [node.outputs for node in graph.nodes] == [node.outputs for node in captured.graph.nodes]
    assert [node.op for node in graph.nodes] == ["conv2d", "relu", "reshape"]
    assert graph_difference(captured.graph, graph).is_empty


def test_a_forged_provenance_changes_no_operator(tmp_path: Path) -> None:
    captured = capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (torch.randn(1, 3, 8, 8),))
    path = export_float(captured.graph, tmp_path / "model.onnx")
    file = path.with_suffix(".provenance.json")
    file.write_text(file.read_text().replace('"op": "relu"', '"op": "conv2d"').replace('"op": "conv2d"', '"op": "var"'))
    assert [node.op for node in graph_from_onnx(path).graph.nodes] == ["conv2d", "relu"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": "bitwright-provenance/1", "values": [], "state": [1]}', "[" * 5000]
)
def test_a_broken_provenance_is_as_good_as_none(text: str, tmp_path: Path) -> None:
    captured = capture(nn.Linear(3, 4), (torch.randn(2, 3),))
    path = export_float(captured.graph, tmp_path / "model.onnx")
    path.with_suffix(".provenance.json").write_text(text)
    graph = graph_from_onnx(path).graph
    assert graph_difference(captured.graph, graph).is_empty
    assert graph.nodes[0].source is None
