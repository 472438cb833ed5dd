"""Sorting everything to keep a few, or fetching again what top-k has returned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.quant.graph import Graph, Node


class SortForTopK:
    """Looks for sorts of which only the first elements are read, and for gathers by the indices of a top-k.

    A sort of n elements takes n log n comparisons in sequence, a top-k of k of them n log k, and toolchains have a
    kernel for the latter. What `x.gather(1, x.topk(k, 1).indices)` fetches with random reads are the values that the
    top-k has returned already.
    """

    name: ClassVar[str] = "sort_for_top_k"
    summary: ClassVar[str] = "a sort or a gather that one top-k makes unnecessary"
    bad: ClassVar[str] = "best = scores.sort(-1, descending=True).indices[:, :100]"
    good: ClassVar[str] = "best = scores.topk(100).indices"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such sort or gather."""
        for graph, node in context.computed_nodes():
            if node.op in ("sort", "argsort"):
                kept = _kept(graph, node)
                found = f"{node.op} of {_length(graph, node)} elements, of which {kept} are read" if kept else ""
                suggestion = f"topk({kept}, largest={bool(node.attributes.get('descending'))})"
            else:
                found = f"{node.op} fetches the values that topk has returned" if _fetches_again(graph, node) else ""
                suggestion = "values, indices = x.topk(k), and the values as they are"
            if found:
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=found,
                    allowed="one topk, which returns values and indices",
                    suggestion=suggestion,
                )


def _length(graph: Graph, node: Node) -> int | None:
    shape = graph.tensors[node.tensors[0]].shape
    return shape[node.attributes["dim"]] if shape else None


def _kept(graph: Graph, node: Node) -> int | None:
    """How many of the first elements all readers keep; None when some keep others."""
    counts = set()
    for ref in node.outputs:
        rank = len(graph.tensors[ref].shape)
        if ref in graph.outputs:
            return None
        for reader in graph.consumers[ref]:
            given = reader.attributes
            front = reader.op == "slice" and not given["start"] and given["step"] == 1
            if not front or given["dim"] % rank != node.attributes["dim"] % rank:
                return None
            counts.add(graph.tensors[reader.outputs[0]].shape[given["dim"]])
    count = counts.pop() if len(counts) == 1 else None
    return count if count != _length(graph, node) else None


def _fetches_again(graph: Graph, node: Node) -> bool:
    if node.op != "gather" or len(node.tensors) < 2:
        return False
    source, index = node.tensors[:2]
    top = graph.producers.get(index)
    if top is None or top.op != "topk" or top.outputs[1] != index or top.tensors[0] != source:
        return False
    rank = len(graph.tensors[source].shape)
    return bool(top.attributes["dim"] % rank == node.attributes["dim"] % rank)


RULE = SortForTopK
