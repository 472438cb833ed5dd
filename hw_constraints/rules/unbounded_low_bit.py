"""An activation without a bound in fewer than eight bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.formats import IntFormat

_OPEN = frozenset({"relu", "leaky_relu", "prelu", "silu", "gelu", "hardswish", "elu", "mish", "softplus"})
_ENOUGH = 8  # bits


class UnboundedLowBit:
    """Looks at activations that a plan, or the target's default, keeps in fewer than eight integer bits.

    With 4 bits there are sixteen steps from the smallest to the largest value: one outlier takes them all. A clipped
    activation (ReLU6, or a trained bound as in PACT, Choi et al. 2018) fixes the range; a ReLU does not.
    """

    name: ClassVar[str] = "unbounded_low_bit"
    summary: ClassVar[str] = "an activation without a bound in fewer than eight bits"
    bad: ClassVar[str] = "x = F.relu(self.conv(x))  # planned in 4 bits"
    good: ClassVar[str] = "x = F.relu6(self.conv(x))"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such activation."""
        default = context.target.numerics.activations[0]
        for _, node in context.computed_nodes():
            result = node.outputs[0] if node.outputs else None
            if node.op not in _OPEN or result is None or context.is_place(result):
                continue
            spec = context.plan.activations.get(result) if context.plan else default
            if context.plan is None and context.place(node) is not Place.LOW:
                continue
            if spec is None or not isinstance(spec.format, IntFormat) or spec.format.bits >= _ENOUGH:
                continue
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} has no upper bound and is kept in {spec.format.name}",
                allowed=f"bounded activations where there are only {1 << spec.format.bits} codes",
                suggestion="relu6 (or a trained bound), or eight bits for this tensor",
            )


RULE = UnboundedLowBit
