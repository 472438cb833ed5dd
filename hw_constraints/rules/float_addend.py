"""A residual sum of which one addend arrives in float."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.graph import CONVOLUTIONS, Node


class FloatAddend:
    """Looks at sums in low precision, and at what made each addend.

    A sum runs in the epilogue of a convolution, or as an operator on codes, if both addends are codes. An addend that
    something in float made has to be converted first, and its rounding error enters the residual path unclipped. The
    residual stream of a transformer is another matter: it is in float wherever its norms are.
    """

    name: ClassVar[str] = "float_addend"
    summary: ClassVar[str] = "a residual sum with one addend in float"
    bad: ClassVar[str] = "x = self.conv(x) + torch.sin(x)"
    good: ClassVar[str] = "x = self.conv(x) + self.shortcut(x)  # both in low precision"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such sum."""
        for _, node in context.computed_nodes():
            if node.op not in ("add", "sub") or context.place(node) is not Place.LOW:
                continue
            makers = [context.maker(ref) for ref in node.tensors]
            layers = [maker for maker in makers if maker and _is_low_layer(context, maker)]
            outside = [maker for maker in makers if maker and context.place(maker) in (Place.FLOAT, Place.HOST)]
            if layers and outside and not context.is_place(node.outputs[0]):
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} of {layers[0].op} in low precision and {outside[0].op} in float",
                    allowed="addends that are both in low precision",
                    suggestion=f"write {outside[0].op} with operators that run in low precision, or keep the sum in "
                    "float",
                )


def _is_low_layer(context: LintContext, node: Node) -> bool:
    if context.place(node) is not Place.LOW:
        return False
    if node.op in CONVOLUTIONS or not node.tensors:
        return node.op in CONVOLUTIONS
    before = context.maker(node.tensors[0])  # its activation
    return before is not None and before.op in CONVOLUTIONS and context.place(before) is Place.LOW


RULE = FloatAddend
