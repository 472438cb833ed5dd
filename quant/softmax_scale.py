"""Which scales the result of a softmax may have, so that kernels in codes compute what was simulated.

ONNX Runtime's `QLinearSoftmax` reads exponentials from a table that reaches up to `max(float32) / (e^5 n)`, `n` the
length of the axis, multiplies them by `floor(1 / scale)` and divides by their sum. So a scale whose reciprocal is no
whole number puts every code off by a share of itself, up to one in twenty of them on the other side of a rounding tie;
and below `1 / (e^5 n)` the product overflows, and the largest results come out as 0. Of `n` results that sum to 1 the
largest is `1 / n` at least: a scale as narrow as that only comes of results that are nearly all alike, and holding it
costs them less than a bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.plan import QuantPlan
from bitwright.quant.qparams import QParams, next_power_of_two
from bitwright.quant.scheme import ScaleKind

# The table is made in float32: a thousandth of it leaves room for its rounding.
_RESERVE = math.exp(5) * (1 - 1e-3)


def with_softmax_scales(
    graph: Graph, plan: QuantPlan, qparams: Mapping[TensorRef, QParams]
) -> dict[TensorRef, QParams]:
    """Widens the scales of softmax results in 8-bit codes, and of what shares theirs, to the next that kernels hold."""
    held = dict(qparams)
    for node in graph.nodes:
        own = held.get(node.outputs[0]) if node.op == "softmax" else None
        if own is None or not isinstance(own.spec.format, IntFormat) or own.spec.format.bits > 8:
            continue
        length = graph.tensors[node.outputs[0]].shape[int(node.attributes["dim"])] or 1
        widened = replace(own, scale=_whole_reciprocal(own.scale, most=_RESERVE * length))
        if own.spec.scale_kind is ScaleKind.POWER_OF_TWO:
            widened = replace(own, scale=next_power_of_two(widened.scale))
        group = next((each for each in plan.groups if node.outputs[0] in each), frozenset([node.outputs[0]]))
        held |= dict.fromkeys(group & held.keys(), widened)
    return held


def _whole_reciprocal(scale: torch.Tensor, most: float) -> torch.Tensor:
    """The smallest scale from this one on whose reciprocal is, in float32, a whole number of at most `most`."""
    reciprocal = (1 / scale.double()).clamp(max=most).floor()
    whole = (1 / reciprocal).to(torch.float32)
    short = (1 / whole).floor() < reciprocal
    whole = torch.where(short, torch.nextafter(whole, torch.zeros(())), whole)
    return torch.where(reciprocal >= 1, whole, scale)
