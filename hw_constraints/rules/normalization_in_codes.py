"""A normalization over features whose mean and variance are computed from codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place

_NORMS = frozenset({"layer_norm", "group_norm", "rms_norm", "instance_norm"})


class NormalizationInCodes:
    """Looks for normalizations on hardware that has no floating point.

    The variance is a mean of squares: its range is the square of the input's, so that half of its bits are gone, and
    its reciprocal root makes relative errors of small values large. A batch norm is folded away instead.
    """

    name: ClassVar[str] = "normalization_in_codes"
    summary: ClassVar[str] = "layer norm or its kin where there is no floating point"
    bad: ClassVar[str] = "x = self.norm(x)  # nn.LayerNorm on an integer accelerator"
    good: ClassVar[str] = "x = self.norm(x)  # nn.BatchNorm2d, which folds into the layer before it"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such call."""
        if context.target.numerics.float_formats:
            return
        kept = context.plan.kept_float if context.plan else {}
        for _, node in context.computed_nodes():
            # What the plan keeps in float is rule dtype's matter.
            if node.op in _NORMS and context.place(node) is Place.LOW and not kept.get(node.name):
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} computes a variance from {context.bits(node.tensors[0])}-bit codes",
                    allowed=f"norms that fold into layers: {context.target.id} has no floating point",
                    suggestion="batch_norm, which folds into the layer before it, or 16-bit activations around it",
                )


RULE = NormalizationInCodes
