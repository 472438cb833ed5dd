"""An operator whose result spans many orders of magnitude, computed in integer codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import Graph, Node

_ALWAYS = frozenset({"exp", "exp2", "expm1", "square", "reciprocal", "rsqrt", "log", "log2", "log1p"})


class WideRange:
    """Looks for exponentials, powers, logarithms and quotients that the target computes on codes.

    Equal steps suit values of one order of magnitude. exp(x) over x in [-6, 6] spans five; with 256 steps over it,
    everything below x = 0.5 is one of the first two codes. A quotient is unbounded where its denominator comes near 0.
    """

    name: ClassVar[str] = "wide_range"
    summary: ClassVar[str] = "exp, pow, log or a quotient in integer codes"
    bad: ClassVar[str] = "size = torch.exp(self.wh(x))  # in int8"
    good: ClassVar[str] = "return self.wh(x)  # and the exponential outside, in float"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such call."""
        if not isinstance(context.target.numerics.activations[0].format, IntFormat):
            return
        for graph, node in context.computed_nodes():
            if context.place(node) is not Place.LOW or context.is_place(node.outputs[0]) or not _is_wide(graph, node):
                continue
            bits = context.bits(node.outputs[0])
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} in {bits} bits: {1 << bits} equal steps over several orders of magnitude",
                allowed="operators whose results are of one order of magnitude",
                suggestion="compute it outside the quantized part, or in 16 bits, or train the network to predict it",
            )


def _is_wide(graph: Graph, node: Node) -> bool:
    if node.op in _ALWAYS:
        return True
    if node.op == "pow":
        exponent = node.attributes.get("exponent")
        return not isinstance(exponent, int | float) or exponent >= 2 or exponent < 0
    if node.op == "div":
        return len(node.tensors) == 2 and not graph.is_constant(node.tensors[1])
    return node.op == "mul" and len(node.tensors) == 2 and node.tensors[0] == node.tensors[1]


RULE = WideRange
