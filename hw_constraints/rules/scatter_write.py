"""Writes to places that are only known when the network runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.graph import Graph, Node

_WRITES = frozenset(
    {"scatter", "scatter_add", "scatter_reduce", "index_put", "index_add", "index_copy", "masked_scatter", "put"}
)


class ScatterWrite:
    """Looks for scatters whose indices the network computes or is given.

    Every element goes to an address of its own: no tile, no vector, no prefetch. The accelerator falls back to a slow
    path in float, and the layers around it convert to and fro. Indices that are constants are fine: toolchains turn
    them into copies.
    """

    name: ClassVar[str] = "scatter_write"
    summary: ClassVar[str] = "a write to computed places"
    bad: ClassVar[str] = "canvas[:, :, cells] = pillars"
    good: ClassVar[str] = "x = torch.where(mask, pillars, canvas)  # or scatter before the network"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such call that the accelerator runs at all."""
        for graph, node in context.computed_nodes():
            if node.op not in _WRITES or context.place(node) not in (Place.FLOAT, Place.LOW):
                continue
            masked = _by_mask(graph, node)
            if not masked and not _computed_index(graph, node):
                continue
            what = "to the elements that a mask selects" if masked else "to computed places, element by element"
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} writes {what}",
                allowed="reads and writes at addresses that are known before",
                suggestion="torch.where(mask, new, old)"
                if masked
                else "scatter before the network's inputs, or gather with a fixed table",
            )


def _index_operands(node: Node) -> tuple[int, ...]:
    return tuple(range(1, len(node.inputs))) if node.op in ("index_put", "put", "masked_scatter") else (1,)


def _computed_index(graph: Graph, node: Node) -> bool:
    return any(
        (ref := node.inputs[i]) is not None and not graph.is_constant(ref) and not graph.tensors[ref].is_floating
        for i in _index_operands(node)
    )


def _by_mask(graph: Graph, node: Node) -> bool:
    return any(
        (ref := node.inputs[i]) is not None and graph.tensors[ref].dtype == "bool" for i in _index_operands(node)
    )


RULE = ScatterWrite
