"""Qparams of weights: ranges are read off the weights themselves, per channel, in blocks, or whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.operand_axes import summed_axis, weight_axis
from bitwright.quant.plan import QuantPlan
from bitwright.quant.qparams import QParams, block_extremes, choose_qparams, cut_into_blocks, next_power_of_two
from bitwright.quant.scheme import Granularity, QParamsSpec, ScaleKind


def choose_weight_qparams(weight: torch.Tensor, spec: QParamsSpec, axis: int | None) -> QParams:
    """Chooses the qparams of a weight.

    `min_max` represents every weight; `mse` shrinks each range to where its squared error is least (a grid of 80
    factors from 0.2 to 1). Scales that are defined by the largest value of a block (MX, NVFP4) follow their definition.

    Args:
        weight: float32, any shape.
        spec: what is asked for.
        axis: its channel axis, or that which is cut into blocks; None for a single number; not used per tensor.
    """
    if axis is None:
        return choose_qparams(weight, weight, spec)
    if spec.granularity is Granularity.PER_TENSOR:
        low, high = _range(weight.reshape(1, -1), spec)
        return choose_qparams(low[0], high[0], spec)
    if spec.block_size is None:
        return choose_qparams(*_range(weight.movedim(axis, 0).flatten(1), spec), spec, axis=axis)
    low, high = block_extremes(weight, spec.block_size, axis)
    if spec.observer == "mse" and spec.scale_kind in (ScaleKind.FLOAT32, ScaleKind.POWER_OF_TWO):
        blocks = cut_into_blocks(weight, spec.block_size, axis)
        alone = replace(spec, granularity=Granularity.PER_CHANNEL, block_size=None)
        shape = low.shape
        low, high = (bound.reshape(shape) for bound in _range(blocks.flatten(0, -2), alone))
    return choose_qparams(low, high, spec, axis=axis)


def _range(rows: torch.Tensor, spec: QParamsSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """The range of each row, `[C, n]` to `[C]`."""
    low, high = rows.amin(1), rows.amax(1)
    if spec.observer != "mse":
        return low, high
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
        ref: choose_weight_qparams(
            torch.from_numpy(graph.array(ref)),
            spec,
            weight_axis(graph, ref) if spec.block_size is None else summed_axis(graph, ref),
        )
        for ref, spec in plan.weights.items()
        if ref not in activations
    }
    for bias in plan.biases.values():
        values = torch.from_numpy(graph.array(bias.weight)).movedim(weight_axis(graph, bias.weight), 0).flatten(1)
        added = torch.from_numpy(graph.array(bias.bias))
        chosen[bias.weight] = _holding_bias(chosen[bias.weight], values, added, activations[bias.input])
    return chosen


def _holding_bias(weight: QParams, rows: torch.Tensor, bias: torch.Tensor, data: QParams) -> QParams:
    """Widens the scale of channels whose bias would not fit into int32 beside the sum that it is added to.

    Batch norms with a vanishing gamma leave weights of 1e-20 beside a bias of 1: with the scale that such weights ask
    for, the bias saturates or the sum wraps around, and the channel is wrong, while its weights do not matter.

    With `n` weights `w` a channel and codes of the data up to `x` from their zero point, the accumulator holds at most
    `|b| / (s_data s) + x (sum |w| / s + n)`: half a step a weight for its rounding, half a step for the correction of
    the bias by what rounding does. That must not exceed `2**31 - 1`. Where sums can pass that without any bias (of
    8-bit codes from `2**31 / (255 * 127)` = 66,311 products on, of 16-bit ones from 516 on) no bias is to blame: it
    gets half of the range.

    Args:
        weight: as the weights alone ask for; `[]` or `[C]`.
        rows: the weights, `[C, n]`.
        bias: `[C]`, or several groups of them.
        data: of what the weights are multiplied by; per tensor.
    """
    low, high = data.spec.code_range
    farthest = float(torch.maximum(high - data.zero_point, data.zero_point - low))

    def of_scales(channels: torch.Tensor) -> torch.Tensor:
        return channels.reshape(-1, *weight.scale.shape).amax(0)

    addend = of_scales(bias.abs().double() / data.scale.double())
    products = farthest * of_scales(rows.double().abs().sum(1))
    room = 2**31 - 1 - farthest * rows.shape[1]
    needed = torch.where(products < room * weight.scale, (addend + products) / max(room, 1), addend / 2**30)
    scale = torch.maximum(weight.scale, needed.to(torch.float32) * (1 + 2**-22))
    if weight.spec.scale_kind is ScaleKind.POWER_OF_TWO:
        scale = next_power_of_two(scale)
    return replace(weight, scale=scale)
