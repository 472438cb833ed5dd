"""A small constant against division by zero that is zero itself in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at

_SMALLEST = 2.0**-24  # float16's smallest number above zero (IEEE 754-2019, table 3.5: emin -14, 10 bits of fraction)
_ARGUMENTS = ("eps", "min", "other", "min_val")


class EpsilonUnderflow:
    """Looks at the small constants of operators whose result is float16.

    Below 2^-25 a constant rounds to zero there, so that it protects nothing: 0 / 0 is NaN.
    """

    name: ClassVar[str] = "epsilon_underflow"
    summary: ClassVar[str] = "a small constant that float16 rounds to zero"
    bad: ClassVar[str] = "x = x / (x.norm(dim=1, keepdim=True) + 1e-8)  # in float16"
    good: ClassVar[str] = "x = x / (x.norm(dim=1, keepdim=True) + 1e-6)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such constant."""
        for graph, node in context.computed_nodes():
            if not any(graph.tensors[ref].dtype == "float16" for ref in node.outputs):
                continue
            given = [node.attributes.get(name) for name in _ARGUMENTS]
            lost = [each for each in given if isinstance(each, float) and 0 < abs(each) < _SMALLEST / 2]
            if lost:
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{lost[0]:g} of {node.op} is 0 in float16",
                    allowed=f"constants from {_SMALLEST:.2g} on",
                    suggestion="1e-6, or compute this in float32",
                )


RULE = EpsilonUnderflow
