"""A softmax over more entries than its result has codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place


class SoftmaxCodes:
    """Compares the length of a row with the number of codes of the result's format.

    The entries of a row sum to 1, so that n of them are 1/n on average. With b bits over [0, 1] a step is 1/2^b: from
    n = 2^b on the average entry is less than a step, and all but the peaks round to nothing.
    """

    name: ClassVar[str] = "softmax_codes"
    summary: ClassVar[str] = "a softmax in low precision over more entries than there are codes"
    bad: ClassVar[str] = "weights = (q @ k.transpose(1, 2)).softmax(-1)  # over 4096 keys, in int8"
    good: ClassVar[str] = "weights = ...  # over a window of 64 keys, or kept in float or 16 bits"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such softmax."""
        for graph, node in context.computed_nodes():
            if node.op not in ("softmax", "log_softmax") or context.place(node) is not Place.LOW:
                continue
            shape = graph.tensors[node.outputs[0]].shape
            entries = shape[node.attributes.get("dim", -1)] if shape else None
            bits = context.bits(node.outputs[0])
            if entries is None or entries < 1 << bits:
                continue
            floats = context.target.numerics.float_formats
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} over {entries} entries in {bits} bits, {(1 << bits) / entries:.2g} steps each",
                allowed=f"fewer than {1 << bits} entries in {bits} bits",
                suggestion="keep it in float" if floats else "attend within windows, or plan its result in 16 bits",
            )


RULE = SoftmaxCodes
