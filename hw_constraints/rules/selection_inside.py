"""Sorting and selecting inside the network: a rounding step apart, another result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place

_SELECTIONS = frozenset({"topk", "sort", "argsort", "msort", "kthvalue", "nms", "batched_nms", "unique", "median"})


class SelectionInside:
    """Looks for top-k, sorting and non-maximum suppression within the captured part.

    They compare neighbours: two scores within one quantization step change places, and everything behind them is
    another box. Element-wise comparisons with float then look terrible where nothing is wrong. They are also sequential
    work without multiplications, which accelerators hand to a slow unit or to their host.
    """

    name: ClassVar[str] = "selection_inside"
    summary: ClassVar[str] = "top-k, sorting or non-maximum suppression inside the network"
    bad: ClassVar[str] = "scores, index = scores.topk(100)"
    good: ClassVar[str] = "return scores  # and select after the network, on the host"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such call that the accelerator runs at all."""
        for _, node in context.computed_nodes():
            place = context.place(node)
            if node.op in _SELECTIONS and place in (Place.FLOAT, Place.LOW):
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} inside the network: scores a rounding step apart change places",
                    allowed="dense results, from which the host selects",
                    suggestion="return the scores and select outside the quantized part; keep the scores in float",
                )


RULE = SelectionInside
