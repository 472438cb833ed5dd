"""Branches, loops and reads that the value of a tensor decides, found in the text of `forward`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext
from bitwright.hw_constraints.source_scan import Decided, Decision, scan

_SAYS = {
    Decision.BRANCH: (
        "the value of a tensor decides which branch runs",
        "torch.where(condition, a, b), which computes both, or two networks and the choice outside",
    ),
    Decision.LOOP: (
        "the value of a tensor decides how often a loop runs",
        "a fixed number of steps, with a mask for those that do not count",
    ),
    Decision.READ: (
        "the value of a tensor is read into Python",
        "compute with the tensor itself, or keep the number as a Python attribute",
    ),
}


class SourceControlFlow:
    """Reads the user's `forward` functions of a network that could not be captured.

    Capture stops at the first place that it cannot trace. The text shows the others, too, so that they can be mended in
    one go. What the text leaves open (a flag, a shape, a None) is not reported; nor is what capture reported itself.
    """

    name: ClassVar[str] = "source_control_flow"
    summary: ClassVar[str] = "further control flow that depends on data, in a network that was not captured"
    bad: ClassVar[str] = "for _ in range(int(counts.max())): x = self.step(x)"
    good: ClassVar[str] = "for _ in range(self.steps): x = self.step(x)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such line."""
        yield from findings(self.name, context, _SAYS)


def findings(rule: str, context: LintContext, says: dict[Decision, tuple[str, str]]) -> Iterator[Finding]:
    """What the text of functions says of the given kinds, where capture failed and did not report the line itself."""
    if not context.capture_failures:
        return
    reported = {(each.source.file, each.source.line) for each in context.capture_failures if each.source}
    for function in context.functions:
        for each in scan(function):
            if each.decision in says and (each.source.file, each.source.line) not in reported:
                yield _finding(rule, each, *says[each.decision])


def _finding(rule: str, each: Decided, found: str, suggestion: str) -> Finding:
    return Finding(
        rule=rule,
        severity=Severity.ERROR,
        node="",
        found=found,
        allowed="the same operators on the same shapes for every input",
        suggestion=suggestion,
        source=each.source,
        focus=each.focus,
    )


RULE = SourceControlFlow
