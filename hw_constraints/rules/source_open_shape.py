"""Results whose size the value of a tensor decides, found in the text of `forward`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding
from bitwright.hw_constraints.lint_context import LintContext
from bitwright.hw_constraints.rules.source_control_flow import findings
from bitwright.hw_constraints.source_scan import Decision

_SAYS = {
    Decision.SHAPE: (
        "a mask decides how many elements there are",
        "torch.where with the mask over all elements, or the k best by top-k",
    )
}


class SourceOpenShape:
    """Reads the user's `forward` functions of a network that could not be captured, for masks used as indices.

    `x[mask]`, `nonzero` and `unique` make a tensor whose size is known only when the network runs, and
    `x[mask] = f(x[mask])` runs layers over it. In a captured network rule dynamic_shape sees the same in the graph.
    """

    name: ClassVar[str] = "source_open_shape"
    summary: ClassVar[str] = "a size that depends on data, in a network that was not captured"
    bad: ClassVar[str] = "y[mask] = self.mlp(x[mask])"
    good: ClassVar[str] = "y = torch.where(mask[..., None], self.mlp(x), y)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such line."""
        yield from findings(self.name, context, _SAYS)


RULE = SourceOpenShape
