"""Interpolation with align_corners: its factor is never the one that is meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.operators import RESIZES


class AlignCorners:
    """Looks at `align_corners=True` in bilinear and bicubic resizing.

    The corner pixels stay where they are, so that the step is (n - 1) / (m - 1) of the input's: doubling 32 rows steps
    by 31/63, no two positions share their weights, and the result shifts by up to half a pixel against the half-pixel
    convention that accelerators implement. A single row or column is the same either way.
    """

    name: ClassVar[str] = "align_corners"
    summary: ClassVar[str] = "interpolation with align_corners=True"
    bad: ClassVar[str] = "x = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)"
    good: ClassVar[str] = "x = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such call."""
        for graph, node in context.computed_nodes():
            if node.op not in RESIZES or not node.attributes.get("align_corners"):
                continue
            if all(size == 1 for size in graph.tensors[node.tensors[0]].shape[2:]):
                continue
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} with align_corners=True",
                allowed="half-pixel centres: align_corners=False",
                suggestion="align_corners=False, and train a little further; or train with it from the start",
            )


RULE = AlignCorners
