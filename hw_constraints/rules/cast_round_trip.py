"""A cast to another type and straight back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at

_CASTS = frozenset({"to", "_to_copy", "type_as"})


class CastRoundTrip:
    """Looks for a cast whose operand comes, by moves alone, from a cast out of the very type it goes to.

    Nothing is computed in the type between, so that both casts cost a pass over the tensor and the first one bits.
    Rounding by way of integers is arithmetic and left alone.
    """

    name: ClassVar[str] = "cast_round_trip"
    summary: ClassVar[str] = "a cast to another type and straight back"
    bad: ClassVar[str] = "x = x.half().flatten(2).float()"
    good: ClassVar[str] = "x = x.flatten(2)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such pair, at the second cast."""
        for graph, node in context.computed_nodes():
            if node.op not in _CASTS:
                continue
            first = context.maker(node.tensors[0])
            if first is None or first.op not in _CASTS:
                continue
            before, between = graph.tensors[first.tensors[0]], graph.tensors[first.outputs[0]]
            after = graph.tensors[node.outputs[0]]
            if before.dtype == after.dtype != between.dtype and before.is_floating and between.is_floating:
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"cast from {before.dtype} to {between.dtype} and back, with nothing computed between",
                    allowed="casts around something that is computed in the other type",
                    suggestion="leave both casts out",
                )


RULE = CastRoundTrip
