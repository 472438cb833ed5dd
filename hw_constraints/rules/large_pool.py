"""A large max pool with stride 1 that small ones in a row compute exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place

_SMALLEST = 9  # from here on, two or more 5x5 pools look at fewer than two thirds of the elements
_STEP = 5


class LargePool:
    """Looks for square max pools with stride 1 and half-kernel padding, as in spatial pyramid pooling.

    A k x k maximum is the maximum of maxima: (k - 1) / 4 pools of 5 x 5 in a row give the same result, bit for bit, and
    look at 25 (k - 1) / 4 elements instead of k^2; a pyramid of 5, 9 and 13 shares them.
    """

    name: ClassVar[str] = "large_pool"
    summary: ClassVar[str] = "a large max pool that a row of 5x5 pools computes exactly"
    bad: ClassVar[str] = "pools = [F.max_pool2d(x, k, 1, k // 2) for k in (5, 9, 13)]"
    good: ClassVar[str] = "a = self.pool(x); b = self.pool(a); c = self.pool(b)  # nn.MaxPool2d(5, 1, 2)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such pool."""
        for _, node in context.computed_nodes():
            if node.op != "max_pool2d" or context.place(node) is Place.HOST:
                continue
            known = context.properties(node)
            kernel = known["kernel_h"]
            if not isinstance(kernel, int) or kernel < _SMALLEST or (kernel - 1) % (_STEP - 1):
                continue
            names = ("kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w", "padding_h", "padding_w")
            if [known[name] for name in names] != [kernel, 1, 1, 1, 1, kernel // 2, kernel // 2]:
                continue
            pools = (kernel - 1) // (_STEP - 1)
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"a {kernel}x{kernel} max pool looks at {kernel * kernel} elements for each result",
                allowed=f"{pools * _STEP * _STEP} elements: {pools} pools of 5x5 in a row give the same",
                suggestion=f"{pools} x nn.MaxPool2d(5, 1, 2) in a row",
            )


RULE = LargePool
