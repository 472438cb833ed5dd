"""An operator that changes nothing, because of what stands before it or because of its own argument."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.quant.graph import Graph, Node

_NOT_NEGATIVE = frozenset({"relu", "sigmoid", "softmax", "hardsigmoid", "abs", "square", "exp", "softplus"})
_NEUTRAL = {"mul": 1, "div": 1, "add": 0, "sub": 0, "pow": 1}


class RedundantOperator:
    """Looks for a ReLU behind what is never negative, and for arithmetic with the neutral element.

    Each is one more operator to run, to calibrate and to get wrong; behind a layer it may also break a fused chain.
    """

    name: ClassVar[str] = "redundant_operator"
    summary: ClassVar[str] = "an operator that changes nothing"
    bad: ClassVar[str] = "x = F.relu(torch.sigmoid(self.conv(x)))"
    good: ClassVar[str] = "x = torch.sigmoid(self.conv(x))"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such operator."""
        for graph, node in context.computed_nodes():
            why = _behind(context, node) or _neutral(graph, node)
            if why:
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} {why}",
                    allowed="operators that change their operand",
                    suggestion="leave it out",
                )


def _behind(context: LintContext, node: Node) -> str:
    if node.op not in ("relu", "abs") or not node.tensors:
        return ""
    maker = context.maker(node.tensors[0])
    if maker is None:
        return ""
    clipped = maker.op == "hardtanh" and maker.attributes.get("min_val", -1) >= 0
    return f"changes nothing: {maker.op} is never negative" if clipped or maker.op in _NOT_NEGATIVE else ""


def _neutral(graph: Graph, node: Node) -> str:
    if node.op not in _NEUTRAL or len(node.tensors) != 1:
        return ""
    number = node.attributes.get("exponent" if node.op == "pow" else "other")
    maker = graph.producers.get(node.tensors[0])
    if maker is not None and maker.op == "reciprocal":
        return ""  # the user wrote `1 / x`, which is traced as a reciprocal and a product
    same = graph.tensors[node.tensors[0]].dtype == graph.tensors[node.outputs[0]].dtype
    if same and isinstance(number, int | float) and number == _NEUTRAL[node.op]:
        return f"changes nothing: its other operand is {number}"
    return ""


RULE = RedundantOperator
