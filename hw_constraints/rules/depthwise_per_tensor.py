"""A depthwise convolution whose channels have to share one scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import CONVOLUTIONS, Node
from bitwright.quant.scheme import Granularity, QParamsSpec


class DepthwisePerTensor:
    """Looks at the weights of depthwise convolutions: as planned, else as the target's file has them by default.

    Each channel has a filter of its own, and folded batch norms spread their sizes over two or three orders of
    magnitude. With one scale for all, the small ones round to nothing (Krishnamoorthi 2018, section 3.1.3; Nagel et
    al. 2019, figure 2).
    """

    name: ClassVar[str] = "depthwise_per_tensor"
    summary: ClassVar[str] = "a depthwise convolution with one scale for all channels' weights"
    bad: ClassVar[str] = "self.dw = nn.Conv2d(96, 96, 3, groups=96)  # where weights have one scale"
    good: ClassVar[str] = "equalize(model)  # or plan its weights per channel or in 16 bits"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such layer."""
        for _, node in context.computed_nodes():
            if node.op not in CONVOLUTIONS or context.properties(node)["depthwise"] is not True:
                continue
            spec = _weights(context, node)
            narrow = isinstance(spec.format, IntFormat) and spec.format.bits <= 8 if spec else False
            if spec is None or not narrow or spec.granularity is not Granularity.PER_TENSOR:
                continue
            permitted = context.target.numerics.weights_of(node.op)
            finer = any(each.granularity is Granularity.PER_CHANNEL for each in permitted)
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"depthwise {node.op} over {context.properties(node)['in_channels']} channels in "
                f"{spec.format.name} with one scale",
                allowed="filters of like size under one scale, or a scale for each channel",
                suggestion="plan its weights per channel"
                if finer
                else "equalize the channels before quantizing (pass equalize), or make it a dense convolution",
            )


def _weights(context: LintContext, node: Node) -> QParamsSpec | None:
    if context.plan is not None:
        return context.plan.weights.get(node.tensors[1])
    if node.op not in context.target.operators.quantized:
        return None
    return context.target.numerics.weights_of(node.op)[0]


RULE = DepthwisePerTensor
