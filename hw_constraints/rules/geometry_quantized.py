"""Index arithmetic or geometry in low precision: places move, and nothing raises an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.quant.geometry import geometry_nodes, geometry_tensors
from bitwright.quant.graph import Graph, Node, TensorRef

# The best of several is found by comparing: its operands are values, though its result is an index.
_SELECTIONS = frozenset({"argmax", "argmin", "argsort", "sort", "topk", "max", "min"})
_ALLOWED = "indices, sampling coordinates and projections in floating point or as integers"


class GeometryQuantized:
    """Speaks about places that a plan quantizes, and about places on hardware that has no floating point."""

    name: ClassVar[str] = "geometry_quantized"
    summary: ClassVar[str] = "indices or sampling coordinates computed in low precision"
    bad: ClassVar[str] = "grid = (points @ projection) / depth  # planned as int8"
    good: ClassVar[str] = "grid = ...  # kept in float, or passed in as an input"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each planned place; where there are no float units, for each path of places."""
        if context.graph is None:
            return
        graph = context.graph
        places = geometry_tensors(graph)
        planned = set(context.plan.activations) & places if context.plan else set()
        for node in graph.nodes:
            for ref in node.outputs:
                if ref in planned:
                    yield self._planned(context, node, ref)
        if not context.target.numerics.float_formats:
            names = geometry_nodes(graph)
            for _, node in context.computed_nodes():
                runs = node.op in context.target.operators.quantized
                if runs and node.name in names and _ends_a_path(graph, node, names):
                    yield self._without_float(context, node)

    def _planned(self, context: LintContext, node: Node, ref: TensorRef) -> Finding:
        assert context.plan is not None
        spec = context.plan.activations[ref]
        return finding_at(
            self.name,
            node,
            severity=Severity.ERROR,
            found=f"{node.op} computes places and is planned as {spec.format.name}",
            allowed=_ALLOWED,
            suggestion=f"keep module {node.module_path!r} in float" if node.module_path else "keep it in float",
        )

    def _without_float(self, context: LintContext, node: Node) -> Finding:
        return finding_at(
            self.name,
            node,
            severity=Severity.WARNING,
            found=f"{node.op} ends a computation of places, and {context.target.id} has no floating point",
            allowed=_ALLOWED,
            suggestion="compute the places outside and pass them in, or make them constants",
        )


def _ends_a_path(graph: Graph, node: Node, names: frozenset[str]) -> bool:
    """Whether real-valued places leave here: for a reader that is no place itself, or into integers."""
    return any(
        graph.tensors[ref].is_floating and any(_leaves(graph, reader, names) for reader in graph.consumers[ref])
        for ref in node.outputs
    )


def _leaves(graph: Graph, reader: Node, names: frozenset[str]) -> bool:
    if reader.op in _SELECTIONS:
        return False
    return reader.name not in names or not any(graph.tensors[ref].is_floating for ref in reader.outputs)


RULE = GeometryQuantized
