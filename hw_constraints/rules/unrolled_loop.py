"""A Python loop over the parts of a tensor, unrolled into as many copies of the same layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.quant.unrolled_loop import unrolled_loop as find_loop


class UnrolledLoop:
    """Looks for stacks whose every tensor comes, by the same layers with the same weights, from one part of a tensor.

    A loop over cameras or frames is unrolled when the network is captured: the weights are loaded once for each step,
    every launch is paid as often, and each layer works on a small batch. On the whole batch the same layers run once.
    """

    name: ClassVar[str] = "unrolled_loop"
    summary: ClassVar[str] = "a loop that runs the same layers on one part of a tensor after the other"
    bad: ClassVar[str] = "features = torch.stack([self.backbone(images[:, i]) for i in range(6)], 1)"
    good: ClassVar[str] = "features = self.backbone(images.flatten(0, 1)).unflatten(0, images.shape[:2])"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each loop, at the stack."""
        for graph, node in context.computed_nodes():
            loop = find_loop(graph, node) if node.op == "stack" else ""
            if isinstance(loop, str) or not any(map(graph.is_layer, loop.step)):
                continue
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{loop.count} steps run the same {len(loop.step)} operators, each on a part of one tensor",
                allowed="one pass over all parts as a batch",
                suggestion="flatten the loop's axis into the batch before the layers, and split it off behind them",
            )


RULE = UnrolledLoop
