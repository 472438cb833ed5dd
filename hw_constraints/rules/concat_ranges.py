"""A concatenation under one scale of tensors whose ranges differ by much."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.graph import Graph, Node, TensorRef

# Two bits of the narrower tensor are lost from here on.
_RATIO = 4.0
_WITHIN_ONE = frozenset({"sigmoid", "softmax", "tanh", "hardsigmoid", "sin", "cos"})
# Results without a bound, whatever goes in.
_OPEN = frozenset({"relu", "leaky_relu", "silu", "gelu", "hardswish", "elu", "prelu", "mish", "exp", "softplus"})


class ConcatRanges:
    """Compares what goes into a concatenation on targets where its operands share scale and zero point.

    Ranges are those that calibration saw, else what the operators guarantee: a sigmoid lies in [0, 1], a ReLU6 in
    [0, 6], a layer's result has no bound. A tensor whose range is a quarter of the widest loses two bits and more.
    """

    name: ClassVar[str] = "concat_ranges"
    summary: ClassVar[str] = "a concatenation of tensors with unlike ranges under one scale"
    bad: ClassVar[str] = "x = torch.cat([self.box(x), self.score(x).sigmoid()], 1)"
    good: ClassVar[str] = "return self.box(x), self.score(x).sigmoid()  # two results, each with its own scale"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such concatenation."""
        for graph, node in context.computed_nodes():
            if node.op not in ("cat", "stack") or node.op not in context.target.operators.shared_qparams:
                continue
            if context.place(node) is not Place.MOVED or context.is_place(node.outputs[0]):
                continue
            if context.plan is not None and node.outputs[0] not in context.plan.activations:
                continue
            widths = [width for ref in node.tensors if (width := _width(context, graph, ref)) is not None]
            if len(widths) < 2 or not 0 < min(widths) < math.inf or max(widths) < _RATIO * min(widths):
                continue
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} puts {_spell(min(widths))} beside {_spell(max(widths))} under one scale",
                allowed=f"operands of like range: {context.target.id} has one scale for all of them",
                suggestion="return them separately, or bring them to one range before (normalize, or ReLU6 on each)",
            )


def _width(context: LintContext, graph: Graph, ref: TensorRef) -> float | None:
    """The largest magnitude of a tensor; infinite where nothing bounds it, None where nothing is known."""
    if ref in context.ranges:
        return max(map(abs, context.ranges[ref]))
    node = context.maker(ref)
    return None if node is None else _bound(graph, node)


def _bound(graph: Graph, node: Node) -> float | None:
    if node.op in _WITHIN_ONE:
        return 1.0
    if node.op == "hardtanh":
        low, high = node.attributes.get("min_val", -1), node.attributes.get("max_val", 1)
        return max(abs(float(low)), abs(float(high)))
    return math.inf if node.op in _OPEN or graph.is_layer(node) else None


def _spell(width: float) -> str:
    return "a tensor without a bound" if width == math.inf else f"a tensor within {width:.3g}"


RULE = ConcatRanges
