"""Places that a quantized network computes from codes, and places that moved: each one its own finding.

A place is an index, a sampling coordinate or what only serves to compute one (`quant.geometry`): in codes it moves by
whole cells, and nothing raises an error. The linter's rule `geometry_quantized` speaks of plans before anything runs;
`quantized_places` also sees inputs, matrices and grids, as files of other toolkits have them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.geometry import geometry_tensors, has_learned_weights
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.parity_measures.measured import Array, finite_pair
from bitwright.quant.plan import QuantPlan


@dataclass(frozen=True, kw_only=True)
class PlaceFinding:
    """One tensor of places.

    Attributes:
        tensor: which.
        op: what makes it; empty for inputs and constants.
        read_by: the operators that read it.
        source: the user's line that makes or first reads it, where it is known.
        found: what is wrong, in words.
    """

    tensor: TensorRef
    op: str
    read_by: tuple[str, ...]
    source: str
    found: str

    def __str__(self) -> str:
        where = f" ({self.source})" if self.source else ""
        return f"{self.tensor}: {self.found}; read by {', '.join(self.read_by) or 'nobody'}{where}"


def place_tensors(graph: Graph) -> tuple[TensorRef, ...]:
    """Everything that says where: results, inputs and constants that serve only that, in the graph's order."""
    places = geometry_tensors(graph)

    def only_places(ref: TensorRef) -> bool:
        readers = graph.consumers[ref]
        makes = (_makes_places(node, places) and not has_learned_weights(graph, node) for node in readers)
        return bool(readers) and ref not in graph.outputs and all(makes)

    return tuple(ref for ref in graph.tensors if ref in places or (graph.is_constant(ref) and only_places(ref)))


def quantized_places(graph: Graph, plan: QuantPlan) -> tuple[PlaceFinding, ...]:
    """The places that a plan, or a Q/DQ file (`onnx_import.graph_from_onnx`), has in codes."""
    coded = {**plan.activations, **plan.weights}
    return tuple(
        _finding(graph, ref, f"a place in {coded[ref].format.name}") for ref in place_tensors(graph) if ref in coded
    )


def moved_places(graph: Graph, reference: Mapping[str, Array], other: Mapping[str, Array]) -> tuple[PlaceFinding, ...]:
    """The places that differ between two runs, in running order: the first one is where they begin to.

    Whole numbers must be equal. Coordinates and matrices in float may differ by their rounding, which
    `thresholds.judge_values` knows.

    Args:
        graph: of the reference.
        reference: tensors by value name, as links record them.
        other: likewise.
    """
    return tuple(
        _finding(graph, ref, found)
        for ref in place_tensors(graph)
        if (name := value_name(ref)) in reference and name in other
        if (found := _moved(reference[name], other[name]))
    )


def _moved(reference: Array, other: Array) -> str:
    if reference.shape != other.shape:
        return f"shape {list(other.shape)} against {list(reference.shape)}"
    if reference.dtype.kind not in "iu":
        return ""
    a, b = finite_pair(reference, other)
    count = int((a != b).sum())
    return f"{count} of {reference.size} indices moved, by {int(np.abs(a - b).max())} at most" if count else ""


def _makes_places(node: Node, places: frozenset[TensorRef]) -> bool:
    return bool(node.outputs) and all(ref in places for ref in node.outputs)


def _finding(graph: Graph, ref: TensorRef, found: str) -> PlaceFinding:
    producer = graph.producers.get(ref)
    readers = graph.consumers[ref]
    lines: Iterator[Node] = (node for node in (producer, *readers) if node is not None and node.source is not None)
    first = next(lines, None)
    return PlaceFinding(
        tensor=ref,
        op=producer.op if producer else "",
        read_by=tuple(dict.fromkeys(node.op for node in readers)),
        source=str(first.source) if first else "",
        found=found,
    )
