"""A buffer that forward changes: somebody has to carry it from one call to the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_about, finding_at


class CarriedState:
    """Looks at the buffers that a network changes while it runs.

    No exported format changes its own constants. Bitwright turns the buffer into one more input and output; an exporter
    that does not leaves a file that is right for the first frame and wrong from the second on, without any error.
    """

    name: ClassVar[str] = "carried_state"
    summary: ClassVar[str] = "a buffer that forward changes"
    bad: ClassVar[str] = "self.memory.copy_(features)  # in forward"
    good: ClassVar[str] = "return output, features  # and the caller passes them into the next call"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each buffer, where its new value is made."""
        if context.graph is None:
            return
        for before, after in context.graph.state:
            found = f"forward changes buffer {before.module_path}"
            allowed = "a file without memory: what outlives a call comes in and goes out"
            suggestion = (
                f"feed output {before.module_path} back as input on every call, or make it an argument and a result"
            )
            node = context.graph.producers.get(after)
            severity = Severity.WARNING
            if node:
                where = finding_at(
                    self.name, node, severity=severity, found=found, allowed=allowed, suggestion=suggestion
                )
            else:
                where = finding_about(
                    self.name,
                    context.graph,
                    before,
                    severity=severity,
                    found=found,
                    allowed=allowed,
                    suggestion=suggestion,
                )
            yield replace(where, focus=_attribute(where, before.module_path))


def _attribute(finding: Finding, path: str) -> str:
    """The buffer as the line names it (`self.memory`), else what the operator's own focus is."""
    name = f"self.{path.rpartition('.')[2]}"
    return name if finding.source and name in finding.source.text else finding.focus


RULE = CarriedState
