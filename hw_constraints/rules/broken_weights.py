"""Weights that are NaN or infinite, or that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.quant.broken_weights import broken_weights


class BrokenWeights:
    """Reads the weights, biases and statistics of layers and norms.

    One NaN makes a whole channel NaN, and from the next layer on everything; a scale that is chosen from an infinite
    weight makes zeros of all others. They come from a training that diverged, from float16 checkpoints whose values
    overflowed, or from a damaged file. Capture refuses PyTorch networks with such weights; this is for ONNX files.
    """

    name: ClassVar[str] = "broken_weights"
    summary: ClassVar[str] = "weights that are NaN or infinite, or that cannot be read"
    bad: ClassVar[str] = "torch.onnx.export(load('diverged.pt'), (image,), 'net.onnx')"
    good: ClassVar[str] = "torch.onnx.export(load('last_finite.pt'), (image,), 'net.onnx')"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such tensor."""
        if context.graph is None:
            return
        for each in broken_weights(context.graph):
            yield finding_at(
                self.name,
                each.node,
                severity=Severity.ERROR,
                found=each.why,
                allowed="finite numbers",
                suggestion="go back to a checkpoint from before the training diverged, or export the file again",
            )


RULE = BrokenWeights
