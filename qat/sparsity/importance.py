"""How much the loss would change without a channel.

All in one unit for a network, so that channels of different layers compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from bitwright.quant.channel_graph import ChannelGraph, ChannelGroup
from bitwright.quant.graph import TensorRef

Importance = dict[str, torch.Tensor]
Measure = Callable[[nn.Module, ChannelGraph, Sequence[ChannelGroup]], Importance]


@torch.no_grad()
def taylor(model: nn.Module, channels: ChannelGraph, groups: Sequence[ChannelGroup]) -> Importance:
    """The squared first-order change of this batch's loss, `(sum of g w)^2` over the weights that read a unit.

    What readers see is what vanishes: behind a batch norm the same sum over the maker's weights is always 0, since its
    scale does not matter. Molchanov et al. 2019, eq. 5, taken at the gates of the readers.

    Returns:
        float32 [units] by group; needs gradients, groups without any are left out.
    """
    return {
        group.name: total.square()
        for group in groups
        if (total := _summed(model, channels, group, reads=True, of=_change)) is not None
    }


@torch.no_grad()
def norm(model: nn.Module, channels: ChannelGraph, groups: Sequence[ChannelGroup]) -> Importance:
    """The squared length of the weights that make a unit, as a share of its group's (Li et al. 2017)."""
    found = {
        group.name: _summed(model, channels, group, reads=False, of=lambda weight: weight.detach().square())
        for group in groups
    }
    return {name: total / total.sum().clamp(min=1e-30) for name, total in found.items() if total is not None}


@torch.no_grad()
def gamma(model: nn.Module, channels: ChannelGraph, groups: Sequence[ChannelGroup]) -> Importance:
    """The squared factors of a unit's batch norms, as a share of its group's (Liu et al. 2017); else as `norm`."""
    result = norm(model, channels, groups)
    for group in groups:
        total = torch.zeros(len(group.units))
        for ref, axis in group.axes:
            owner = model.get_submodule(ref.module_path.rpartition(".")[0])
            if isinstance(owner, nn.modules.batchnorm._BatchNorm) and ref.module_path.endswith("weight"):
                total += _by_unit(owner.weight.detach().square().cpu(), channels, group, ref, axis)
        if total.any():
            result[group.name] = total / total.sum()
    return result


MEASURES: dict[str, Measure] = {"taylor": taylor, "norm": norm, "gamma": gamma}


def _change(weight: torch.Tensor) -> torch.Tensor | None:
    return None if weight.grad is None else weight.detach() * weight.grad


def _summed(
    model: nn.Module,
    channels: ChannelGraph,
    group: ChannelGroup,
    *,
    reads: bool,
    of: Callable[[torch.Tensor], torch.Tensor | None],
) -> torch.Tensor | None:
    """A quantity of each weight, summed over what belongs to each unit; None where no weight has it."""
    total = None
    for ref, axis in group.axes:
        reader = channels.graph.consumers[ref][0]
        if len(channels.graph.tensors[ref].shape) < 2 or not channels.graph.is_layer(reader):
            continue
        input_axis = 0 if reader.op.startswith("conv_transpose") else 1
        if (axis == input_axis) != reads:
            continue
        values = of(model.get_parameter(ref.module_path))
        if values is None:
            continue
        line = values.float().sum([each for each in range(values.dim()) if each != axis]).cpu()
        own = _by_unit(line, channels, group, ref, axis)
        total = own if total is None else total + own
    return total


def _by_unit(
    line: torch.Tensor, channels: ChannelGraph, group: ChannelGroup, ref: TensorRef, axis: int
) -> torch.Tensor:
    units = channels.units_along(ref, axis)
    assert units is not None
    order = torch.tensor(group.units)
    rank = order.argsort()
    places = torch.searchsorted(order[rank], torch.from_numpy(units)).clamp(max=len(order) - 1)
    own = order[rank][places] == torch.from_numpy(units)
    return torch.zeros(len(order)).index_add(0, rank[places[own]], line[own])
