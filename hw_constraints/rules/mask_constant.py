"""A mask made of huge numbers in a tensor that is quantized."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.graph import Graph, Node, TensorRef

# Attention scores are below a few hundred; a constant beyond this can only be a mask.
_HUGE = 1e4
_LARGEST = 1 << 22  # elements; larger constants are not read


class MaskConstant:
    """Looks for -inf, -1e9 and the like that are written or added into a tensor in low precision.

    The range of the tensor then reaches down to the mask: with 8 bits over 1e9 a step is four million, and every real
    score falls on one code. Infinity cannot be quantized at all.
    """

    name: ClassVar[str] = "mask_constant"
    summary: ClassVar[str] = "a mask of -inf or -1e9 in a tensor that is quantized"
    bad: ClassVar[str] = "scores = scores.masked_fill(mask, float('-inf')).softmax(-1)"
    good: ClassVar[str] = "scores = scores.masked_fill(mask, -30.0).softmax(-1)  # exp(-30) is 1e-13"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such mask."""
        for graph, node in context.computed_nodes():
            value = _mask_value(graph, node)
            if value is not None and _is_quantized(context, node):
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} puts {value:g} into a tensor in {context.bits(node.outputs[0])} bits",
                    allowed="values of the size of the scores, as one range covers them all",
                    suggestion="a value a little below the smallest score, such as -30: softmax makes 1e-13 of it",
                )


def _mask_value(graph: Graph, node: Node) -> float | None:
    """The huge constant that a node writes or adds, if it does."""
    if node.op not in ("masked_fill", "where", "add", "sub", "index_put", "full_like", "fill"):
        return None
    given = [node.attributes.get(name) for name in ("value", "other", "self")]
    numbers = [float(each) for each in given if isinstance(each, int | float)]
    candidates = numbers + [_extreme(graph, ref) for ref in node.tensors if graph.is_constant(ref)]
    huge = [each for each in candidates if abs(each) >= _HUGE or math.isinf(each)]
    return huge[0] if huge else None


def _extreme(graph: Graph, ref: TensorRef) -> float:
    """The value of the largest magnitude in a constant; 0 where it is not known."""
    info = graph.tensors[ref]
    if graph.load is None or not info.is_floating or None in info.shape or not 0 < info.elements <= _LARGEST:
        return 0.0
    array = graph.array(ref)
    return float(array.reshape(-1)[np.abs(array).argmax()])


def _is_quantized(context: LintContext, node: Node) -> bool:
    result = node.outputs[0]
    if context.is_place(result):
        return False
    if context.plan is not None:
        return result in context.plan.activations
    return context.place(node) in (Place.LOW, Place.MOVED) or any(
        context.place(reader) is Place.LOW for reader in context.readers(result)
    )


RULE = MaskConstant
