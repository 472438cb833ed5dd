"""A kernel, stride, channel count or shape beyond what the target's file allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.node_properties import properties


class ShapeLimits:
    """Decides the predicates of the target's constraints for each call."""

    name: ClassVar[str] = "shape_limits"
    summary: ClassVar[str] = "a kernel, stride, channel count or shape beyond the accelerator's limits"
    bad: ClassVar[str] = "self.pool = nn.MaxPool2d(300)  # the accelerator pools 256 at most"
    good: ClassVar[str] = "self.pool = nn.Sequential(nn.MaxPool2d(20), nn.MaxPool2d(15))"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each broken constraint; what depends on an open dimension is left to others."""
        for graph, node in context.computed_nodes():
            constraints = context.target.constraints_on(node.op)
            known = properties(graph, node) if constraints else {}
            for constraint in constraints:
                if constraint.require.holds(known) is False:
                    checked = "" if constraint.verified else f" (not verified; {constraint.source})"
                    yield finding_at(
                        self.name,
                        node,
                        severity=constraint.severity,
                        found=f"{node.op} with {constraint.require.found(known)}",
                        allowed=f"{constraint.require}: {constraint.because}{checked}",
                        suggestion=constraint.suggestion,
                    )


RULE = ShapeLimits
