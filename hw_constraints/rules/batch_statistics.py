"""A norm that computes its statistics from the very data it runs on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place


class BatchStatistics:
    """Looks for batch norms in training form and instance norms.

    In training form a batch norm's result for one image depends on the others of its batch, also in eval mode when it
    was made with `track_running_stats=False`. An instance norm reads each map twice before anything can be computed
    from it. Neither folds into a layer.
    """

    name: ClassVar[str] = "batch_statistics"
    summary: ClassVar[str] = "batch norm in training form, or instance norm"
    bad: ClassVar[str] = "self.norm = nn.BatchNorm2d(64, track_running_stats=False)"
    good: ClassVar[str] = "self.norm = nn.BatchNorm2d(64)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such call."""
        for _, node in context.computed_nodes():
            training = node.op == "batch_norm" and node.attributes.get("training") is True
            instance = node.op == "instance_norm" and node.attributes.get("use_input_stats", True)
            if training or (instance and context.place(node) is not Place.HOST):
                what = "of the batch it runs on" if training else "of each map while it runs"
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.ERROR if training else Severity.WARNING,
                    found=f"{node.op} normalizes with the statistics {what}",
                    allowed="statistics that were collected in training, which fold into the layer before",
                    suggestion="nn.BatchNorm2d with track_running_stats=True, in eval mode",
                )


RULE = BatchStatistics
