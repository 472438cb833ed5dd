"""Qparams of weights: ranges are read off the weights themselves, per channel or whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.plan import QuantPlan
from bitwright.quant.qparams import QParams, choose_qparams, next_power_of_two
from bitwright.quant.scheme import Granularity, QParamsSpec, ScaleKind

# Where the output channels are; layers whose weight is [out, in, …] have them first.
_CHANNEL_AXIS = {
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 1),
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm", "baddbmm"), -1),
}


def weight_axis(graph: Graph, ref: TensorRef) -> int:
    """The axis of a weight's output channels, as the first layer that reads it sees them."""
    rank = len(graph.tensors[ref].shape)
    reader = next((node for node in graph.consumers[ref] if graph.is_layer(node)), None)
    if reader is None:
        return 0
    if reader.op in ("matmul", "mm", "bmm") and reader.inputs[0] == ref:
        return rank - 2 if rank > 1 else 0  # it multiplies from the left: [out, in]
    return _CHANNEL_AXIS.get(reader.op, 0) % rank


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


def weight_qparams(graph: Graph, plan: QuantPlan, activations: Mapping[TensorRef, QParams]) -> dict[TensorRef, QParams]:
    """Qparams of every weight in the plan; constants in a group have theirs from the activations in it.

    Args:
        graph: the network.
        plan: which weights.
        activations: qparams of the activations and groups.
    """
    chosen = {
        ref: choose_weight_qparams(torch.from_numpy(graph.array(ref)), spec, weight_axis(graph, ref))
        for ref, spec in plan.weights.items()
        if ref not in activations
    }
    for bias in plan.biases.values():
        values = torch.from_numpy(graph.array(bias.bias))
        chosen[bias.weight] = _holding_bias(chosen[bias.weight], values, activations[bias.input].scale)
    return chosen


def _holding_bias(weight: QParams, bias: torch.Tensor, input_scale: torch.Tensor) -> QParams:
    """Widens the scale of channels whose bias would not fit into int32.

    Batch norms with a vanishing gamma leave weights of 1e-20 beside a bias of 1: with the scale that such weights ask
    for, the bias saturates and the channel is wrong, while its weights do not matter.
    """
    needed = bias.abs().double() / (input_scale.double() * (2**31 - 1))
    needed = needed.reshape(-1, *weight.scale.shape).amax(0).to(torch.float32) * (1 + 2**-22)
    scale = torch.maximum(weight.scale, needed)
    if weight.spec.scale_kind is ScaleKind.POWER_OF_TWO:
        scale = next_power_of_two(scale)
    return replace(weight, scale=scale)
