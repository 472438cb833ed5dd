"""Qparams of weights: ranges are read off the weights themselves, per channel or whole."""

from __future__ import annotations

import torch

from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.plan import QuantPlan
from bitwright.quant.qparams import QParams, choose_qparams
from bitwright.quant.scheme import Granularity, QParamsSpec

# Where the output channels are; layers whose weight is [out, in, …] have them first.
_CHANNEL_AXIS = {"conv_transpose1d": 1, "conv_transpose2d": 1, "conv_transpose3d": 1, "matmul": -1, "bmm": -1, "mm": -1}


def weight_axis(graph: Graph, ref: TensorRef) -> int:
    """The axis of a weight's output channels."""
    rank = len(graph.tensors[ref].shape)
    return _CHANNEL_AXIS.get(graph.consumers[ref][0].op, 0) % rank


def choose_weight_qparams(weight: torch.Tensor, spec: QParamsSpec, axis: int) -> QParams:
    """Chooses the qparams of a weight.

    `min_max` represents every weight; `mse` shrinks each channel's range to where its squared error is least
    (a grid of 80 factors from 0.2 to 1).

    Args:
        weight: float32, any shape.
        spec: what is asked for.
        axis: its channel axis, used when the spec is per channel.
    """
    per_channel = spec.granularity is Granularity.PER_CHANNEL
    rows = weight.movedim(axis, 0).flatten(1) if per_channel else weight.reshape(1, -1)
    low, high = rows.amin(1), rows.amax(1)
    if spec.observer == "mse":
        low, high = _least_squares(rows, low, high, spec)
    if not per_channel:
        return choose_qparams(low[0], high[0], spec)
    return choose_qparams(low, high, spec, axis=axis)


def _least_squares(
    rows: torch.Tensor, low: torch.Tensor, high: torch.Tensor, spec: QParamsSpec
) -> tuple[torch.Tensor, torch.Tensor]:
    best = torch.full_like(low, torch.inf)
    factor = torch.ones_like(low)
    for candidate in torch.linspace(1.0, 0.2, 80):
        qparams = choose_qparams(low * candidate, high * candidate, spec, axis=0)
        error = (rows - fake_quantize(rows, qparams)).square().sum(1)
        better = error < best
        best = torch.where(better, error, best)
        factor = torch.where(better, candidate, factor)
    return low * factor, high * factor


def weight_qparams(graph: Graph, plan: QuantPlan) -> dict[TensorRef, QParams]:
    """Qparams of every weight in the plan."""
    return {
        ref: choose_weight_qparams(torch.from_numpy(graph.array(ref)), spec, weight_axis(graph, ref))
        for ref, spec in plan.weights.items()
    }
