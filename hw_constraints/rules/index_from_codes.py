"""An index that is rounded from the result of a layer in low precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.graph import Graph, Node, TensorRef

_INDEXING = frozenset(
    {"index", "index_select", "gather", "embedding", "scatter", "scatter_add", "index_put", "index_add"}
)


class IndexFromCodes:
    """Looks for casts to integers that serve as indices and come from a layer that runs in low precision.

    An activation in 8 bits has 256 values; the cell that it is rounded to moves by as many as the table has cells for
    each of them. The best of several (argmax, top-k) is no such index: it changes only where two are equal.
    """

    name: ClassVar[str] = "index_from_codes"
    summary: ClassVar[str] = "an index rounded from a low-precision activation"
    bad: ClassVar[str] = "depth = self.table[(self.head(x).sigmoid() * 255).long()]"
    good: ClassVar[str] = "depth = 1 / (a + b * self.head(x).sigmoid())  # computed, with that layer kept in float"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such cast, at the line that reads by it."""
        for graph, node in context.computed_nodes():
            if node.op not in _INDEXING:
                continue
            indices = [ref for ref in node.tensors[1:] if graph.tensors[ref].dtype.startswith("int")]
            source = next((found for ref in indices if (found := _layer(context, graph, ref))), None)
            if source is not None:
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} reads at places that are rounded from {source.module_path or source.op}",
                    allowed="indices from inputs, from float layers, or from argmax and top-k",
                    suggestion="keep the layers behind the index in float, or compute the value",
                )


def _layer(context: LintContext, graph: Graph, ref: TensorRef) -> Node | None:
    """The low-precision layer from which an integer tensor is rounded, if there is one; only arithmetic is followed."""
    waiting, seen = [ref], {ref}
    while waiting:
        node = graph.producers.get(waiting.pop())
        if node is None or node.op in ("argmax", "argmin", "topk", "sort", "argsort", "nonzero", "where"):
            continue
        if graph.is_layer(node):
            if context.place(node) is Place.LOW:
                return node
            continue
        new = [each for each in node.tensors if each not in seen and not graph.is_constant(each)]
        seen.update(new)
        waiting += new
    return None


RULE = IndexFromCodes
