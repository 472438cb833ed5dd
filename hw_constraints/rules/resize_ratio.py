"""A resize by a factor that is no whole number, or with a bicubic kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.operators import RESIZES
from bitwright.quant.graph import Graph, Node


class ResizeRatio:
    """Looks at the ratio of sizes of each interpolation.

    For a whole factor the weights repeat and a resize is a copy or a small transposed convolution. Otherwise each
    position has its own weights, runtimes disagree about where the first sample lies, and most accelerators have no
    kernel for it. Bicubic interpolation overshoots the range of its input as well.
    """

    name: ClassVar[str] = "resize_ratio"
    summary: ClassVar[str] = "a resize by a factor that is no whole number"
    bad: ClassVar[str] = "x = F.interpolate(x, size=(45, 80))  # from 32 x 56"
    good: ClassVar[str] = "x = F.interpolate(x, scale_factor=2.0)  # and sizes that are multiples of the stride"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such call."""
        for graph, node in context.computed_nodes():
            if node.op not in RESIZES:
                continue
            sizes = _sizes(graph, node)
            bicubic = "bicubic" in node.op
            if sizes is None or (not bicubic and all(_whole(before, after) for before, after in sizes)):
                continue
            before, after = ("x".join(str(pair[i]) for pair in sizes) for i in (0, 1))
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} from {before} to {after}",
                allowed="nearest or bilinear resizing by a whole factor",
                suggestion="bilinear resizing, which stays within the range of its input"
                if bicubic
                else "choose the input's size as a multiple of the network's stride, and resize by whole factors",
            )


def _sizes(graph: Graph, node: Node) -> list[tuple[int, int]] | None:
    shapes = graph.tensors[node.tensors[0]].shape[2:], graph.tensors[node.outputs[0]].shape[2:]
    pairs = [(before, after) for before, after in zip(*shapes, strict=True) if before and after]
    return pairs if len(pairs) == len(shapes[0]) else None


def _whole(before: int, after: int) -> bool:
    """Whether the factor, or its inverse, is a whole number; a single pixel is spread without any interpolation."""
    return before == 1 or after % before == 0 or before % after == 0


RULE = ResizeRatio
