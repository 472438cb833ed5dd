"""Copies of a tensor for operators that would have broadcast it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.quant.graph import Graph, Node

_BROADCASTING = frozenset(
    {"add", "sub", "mul", "div", "where", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "masked_fill"}
)


class RepeatCopies:
    """Looks for `repeat` along axes of size 1 whose every reader broadcasts.

    `repeat` writes the copies to memory and the reader fetches them; `expand`, or nothing at all, has the reader use
    the one copy again. The results are the same.
    """

    name: ClassVar[str] = "repeat_copies"
    summary: ClassVar[str] = "repeat in front of operators that broadcast"
    bad: ClassVar[str] = "x = x + position.repeat(1, 1, height, width)"
    good: ClassVar[str] = "x = x + position"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such repeat."""
        for graph, node in context.computed_nodes():
            copies = _copies(graph, node)
            readers = graph.consumers[node.outputs[0]] if node.outputs else ()
            if copies > 1 and readers and all(reader.op in _BROADCASTING for reader in readers):
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} writes {copies} copies for {readers[0].op}, which broadcasts",
                    allowed="one copy, which the reader uses again",
                    suggestion="leave the repeat out, or use expand",
                )


def _copies(graph: Graph, node: Node) -> int:
    """How many copies are made, all along axes of size 1; 0 otherwise."""
    if node.op != "repeat":
        return 0
    before, after = graph.tensors[node.tensors[0]].shape, graph.tensors[node.outputs[0]].shape
    if len(before) != len(after) or None in before or None in after:
        return 0
    copies = 1
    for old, new in zip(before, after, strict=True):
        if old != new and old != 1:
            return 0
        copies *= (new or 1) // (old or 1)
    return copies


RULE = RepeatCopies
