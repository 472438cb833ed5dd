"""A stride larger than the kernel: some of the input is computed and never read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.operators import WINDOW_POOLS
from bitwright.quant.graph import CONVOLUTIONS


class StrideSkipsInput:
    """Compares stride with kernel for convolutions and pools.

    With a stride beyond the dilated kernel, rows and columns of the input are never looked at: the layer before them
    worked for nothing, and the result aliases. A 1x1 convolution with stride 2 is the usual shortcut of a residual
    block and is left alone.
    """

    name: ClassVar[str] = "stride_skips_input"
    summary: ClassVar[str] = "a stride larger than the kernel"
    bad: ClassVar[str] = "self.down = nn.Conv2d(64, 64, 2, stride=4)"
    good: ClassVar[str] = "self.down = nn.Conv2d(64, 64, 4, stride=4)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such call."""
        for _, node in context.computed_nodes():
            if node.op not in CONVOLUTIONS | WINDOW_POOLS:
                continue
            known = context.properties(node)
            skipped = [axis for axis in "dhw" if _skips(known[f"kernel_{axis}"], known[f"stride_{axis}"],
                                                        known[f"dilation_{axis}"])]  # fmt: skip
            if not skipped:
                continue
            kernel, stride = known[f"kernel_{skipped[0]}"], known[f"stride_{skipped[0]}"]
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} with kernel {kernel} and stride {stride} never reads some of its input",
                allowed="a stride up to the kernel's size",
                suggestion=f"a kernel of {stride}, or the stride in the layer before",
            )


def _skips(kernel: object, stride: object, dilation: object) -> bool:
    if not (isinstance(kernel, int) and isinstance(stride, int) and isinstance(dilation, int)):
        return False
    return kernel > 1 and stride > (kernel - 1) * dilation + 1


RULE = StrideSkipsInput
