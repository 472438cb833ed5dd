"""A network, or a part of one, that could not be captured for another reason than its data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext


class NotCaptured:
    """Passes on what capture found, so that a network that nobody looked at never counts as clean."""

    name: ClassVar[str] = "not_captured"
    summary: ClassVar[str] = "code that torch.export cannot trace"
    bad: ClassVar[str] = "y = custom_cuda_op(x)"
    good: ClassVar[str] = "y = torch.ops.mine.op(x)  # registered with a fake kernel"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each failure that `data_dependent_control_flow` does not explain."""
        for failure in context.capture_failures:
            if not failure.data_dependent:
                yield Finding(
                    rule=self.name,
                    severity=Severity.ERROR,
                    node="",
                    found=failure.reason,
                    allowed="what torch.export can trace",
                    suggestion=failure.suggestion,
                    source=failure.source,
                )


RULE = NotCaptured
