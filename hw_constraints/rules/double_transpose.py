"""Two transposes in a row that one would do, or one that moves no element."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.quant.graph import Graph, Node


class DoubleTranspose:
    """Looks at each transpose: does another one follow, and does it move anything at all?

    A transpose reads and writes a whole tensor and computes nothing; two in a row are one with the product of their
    orders. Where only axes of length 1 change places, every element stays where it is: a reshape says so, which no
    toolchain turns into a copy. Pairs that undo each other are another rule's.
    """

    name: ClassVar[str] = "double_transpose"
    summary: ClassVar[str] = "two transposes in a row, or one that moves nothing"
    bad: ClassVar[str] = "x = x.permute(0, 2, 3, 1).transpose(1, 2)"
    good: ClassVar[str] = "x = x.permute(0, 3, 2, 1)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each pair, at its second, and for each transpose that moves nothing."""
        for graph, node in context.computed_nodes():
            order = _order(graph, node)
            if order is None or order == sorted(order) or node.module_type == "MultiheadAttention":
                continue  # what torch's own attention does inside is not for the user to change
            first = graph.producers.get(node.tensors[0])
            earlier = _order(graph, first) if first is not None else None
            shape = graph.tensors[node.tensors[0]].shape
            moved = [axis for axis in order if shape[axis] != 1]
            if moved == sorted(moved):
                yield self._at(node, Severity.INFO, "moves only axes of length 1", "reshape, or no axis of length 1")
            elif earlier is not None and first is not None and graph.sole_consumer(first.outputs[0]) is node:
                merged = [earlier[axis] for axis in order]
                if merged != sorted(merged):
                    text = f"follows {first.op} at once"
                    yield self._at(node, Severity.WARNING, text, f"one permute({', '.join(map(str, merged))})")

    def _at(self, node: Node, severity: Severity, found: str, suggestion: str) -> Finding:
        allowed = "one pass over the tensor at most"
        return finding_at(
            self.name, node, severity=severity, found=f"{node.op} {found}", allowed=allowed, suggestion=suggestion
        )


def _order(graph: Graph, node: Node) -> list[int] | None:
    """Which axis of the operand each axis of the result is; None for other operators."""
    if node.op not in ("permute", "transpose") or not node.tensors:
        return None
    rank = len(graph.tensors[node.tensors[0]].shape)
    if node.op == "permute":
        return [axis % rank for axis in node.attributes["dims"]]
    order = list(range(rank))
    first, second = (node.attributes[name] % rank for name in ("dim0", "dim1"))
    order[first], order[second] = second, first
    return order


RULE = DoubleTranspose
