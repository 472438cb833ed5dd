"""A strided convolution of an image's three channels, for which a wide array is mostly idle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.lower.work import WorkKind
from bitwright.hw_constraints.placement import Place
from bitwright.hw_constraints.target_hardware import Loop
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.graph import Node

# Below a quarter saved, the pixels' new order costs as much as it brings.
_WORTH = 0.75


class ShallowStem:
    """Compares a strided convolution with the same one that reads blocks of pixels as channels.

    An array that sums u channels at once takes ceil(C / u) steps for each tap of the kernel. With C = 3 most of it
    waits. With s x s pixels as channels there are s^2 C channels and about 1 / s^2 of the taps:
    ceil(k / s)^2 ceil(s^2 C / u) steps.
    """

    name: ClassVar[str] = "shallow_stem"
    summary: ClassVar[str] = "a strided convolution of too few channels to fill the array"
    bad: ClassVar[str] = "self.stem = nn.Conv2d(3, 64, 7, stride=2, padding=3)"
    good: ClassVar[str] = "self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 64, 4, padding=2))"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such convolution."""
        width = _channels_at_once(context.target)
        if width is None:
            return
        for _, node in context.computed_nodes():
            if node.op != "conv2d" or context.place(node) is not Place.LOW:
                continue
            steps = _steps(context, node, width)
            if steps and steps[1] <= _WORTH * steps[0]:
                channels = context.properties(node)["in_channels"]
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} of {channels} channels, where {width} are summed at once: {steps[0]} steps",
                    allowed=f"{steps[1]} steps with blocks of pixels as channels",
                    suggestion="pixel_unshuffle by the stride, then the convolution with stride 1",
                )


def _channels_at_once(target: Target) -> int | None:
    """How many input channels the widest array sums in one cycle; None where no file says so."""
    arrays = [engine.array for engine in target.engines.values() if engine.array]
    widths = [array.unrolled(WorkKind.CONVOLUTION).get(Loop.IN_CHANNELS, 1) for array in arrays]
    return max(widths, default=None)


def _steps(context: LintContext, node: Node, width: int) -> tuple[int, int] | None:
    """Steps for one result as it is and in blocks; None where blocks do not apply."""
    known = context.properties(node)
    names = ("stride_h", "stride_w", "dilation_h", "dilation_w", "groups", "in_channels", "height", "width")
    sizes = [known[name] for name in (*names, "kernel_h", "kernel_w", "padding_h", "padding_w")]
    stride, stride_w, *_, channels, height, columns = (int(size or 0) for size in sizes[:8])
    fits = stride == stride_w > 1 and sizes[2:5] == [1, 1, 1] and channels < width
    if None in sizes or not fits or height % stride or columns % stride:
        return None
    now, blocks = -(-channels // width), -(-channels * stride * stride // width)
    for axis in "hw":
        kernel, padding = int(known[f"kernel_{axis}"] or 1), int(known[f"padding_{axis}"] or 0)
        now *= kernel
        blocks *= -(-(kernel + -padding % stride) // stride)
    return now, blocks


RULE = ShallowStem
