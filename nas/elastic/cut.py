"""What a candidate lacks of the largest network: made for real, and set to zero in the largest for comparison."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.nn.modules.conv import _ConvNd

from bitwright.nas.elastic.blocks import Block
from bitwright.qat.sparsity.in_place import remove_units
from bitwright.qat.sparsity.removal import silencing, unlike
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.channel_graph import ChannelGraph
from bitwright.quant.graph import TensorRef
from bitwright.quant.preserve import preserved

# What a forward raises that has a size, or a part of a removed block, as a constant.
_REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError, AttributeError)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What is taken out of a network.

    Attributes:
        units: channels (`ChannelGraph`).
        kernels: the sizes that kernels shrink to, by the path of the convolution.
        absent: paths of blocks that are left out.
    """

    units: frozenset[int] = frozenset()
    kernels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()

    def __or__(self, other: Cut) -> Cut:
        return Cut(
            units=self.units | other.units,
            kernels={**self.kernels, **other.kernels},
            absent=self.absent | other.absent,
        )


def together(cuts: Iterable[Cut]) -> Cut:
    """All that any of the cuts takes out."""
    result = Cut()
    for cut in cuts:
        result |= cut
    return result


class Skipped(nn.Module):
    """Stands where a block was left out, so that all others keep their names; returns its first argument."""

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Any tensor, as it is."""
        return x


def cut_out(largest: nn.Module, channels: ChannelGraph, cut: Cut) -> nn.Module:
    """A copy of the largest network without what was cut; its tensors hold what is left of the largest's."""
    network = copy.deepcopy(largest)
    remove_units(network, channels, cut.units)
    for path, kernel in cut.kernels.items():
        _shrink_kernel(network.get_submodule(path), kernel)
    for path in sorted(cut.absent, reverse=True):  # inner blocks before those that they are in
        owner, _, name = path.rpartition(".")
        setattr(network.get_submodule(owner), name, Skipped())
    return network


def _shrink_kernel(conv: nn.Module, kernel: tuple[int, ...]) -> None:
    """Keeps the centre of a kernel whose padding keeps the size, and pads less."""
    assert isinstance(conv, _ConvNd)
    conv.weight.data = _centre(conv.weight.detach(), kernel).clone()
    conv.kernel_size = kernel
    if not isinstance(conv.padding, str):
        conv.padding = tuple(d * (k // 2) for d, k in zip(conv.dilation, kernel, strict=True))
    conv._reversed_padding_repeated_twice = [
        side for d, k in reversed(list(zip(conv.dilation, kernel, strict=True))) for side in 2 * [d * (k // 2)]
    ]


def _centre(weight: torch.Tensor, kernel: tuple[int, ...]) -> torch.Tensor:
    for axis, size in enumerate(kernel, 2):
        weight = weight.narrow(axis, (weight.shape[axis] - size) // 2, size)
    return weight


def with_values_of(model: nn.Module, captured: CapturedModel) -> CapturedModel:
    """The captured network with the values that its model has now; capturing anew would cost seconds."""
    now = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    own = {name: now[ref.module_path] for ref, name in captured.value_refs.items() if ref.module_path in now}
    return replace(captured, values={**captured.values, **own})


def zeroed(
    captured: CapturedModel, channels: ChannelGraph, blocks: Collection[Block], cut: Cut, args: tuple[Any, ...]
) -> list[torch.Tensor]:
    """What the largest network returns with all that was cut out of it at zero, and blocks passed by."""
    silence = silencing(channels, cut.units)
    left_out = {block.exit: block.entry for block in blocks if block.path in cut.absent}
    entered: dict[TensorRef, torch.Tensor] = {}

    def pass_by(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        result = entered[left_out[ref]] if ref in left_out else silence(ref, tensor)
        if ref in left_out.values():
            entered[ref] = result
        return result

    with_borders = {ref.module_path: name for ref, name in captured.value_refs.items()}
    values = dict(captured.values)
    for path, kernel in cut.kernels.items():
        weight = values[with_borders[f"{path}.weight"]].detach()
        smaller = torch.zeros_like(weight)
        _centre(smaller, kernel).copy_(_centre(weight, kernel))
        values[with_borders[f"{path}.weight"]] = smaller
    return captured.outputs(replace(captured, values=values).run(*args, transform=pass_by))


def difference(
    largest: nn.Module,
    captured: CapturedModel,
    channels: ChannelGraph,
    blocks: Collection[Block],
    cut: Cut,
    args: tuple[Any, ...],
) -> str:
    """Why a cut network is not the largest one without what was cut; "" when it is.

    Where channels are cut whose absence changes others (`ChannelGroup.inexact`), only shapes can be compared; then all
    else is compared once more without them.

    Args:
        largest: of all channels, blocks and kernels.
        captured: of `largest`, perhaps before its values changed.
        channels: of it.
        blocks: those that may be absent.
        cut: what is taken out.
        args: arguments of `forward`.
    """
    network = cut_out(largest, channels, cut)
    try:
        with preserved(network), torch.no_grad():
            results = pytree.tree_leaves(network.eval()(*args))
    except _REFUSALS as error:
        return f"its forward cannot do without: {type(error).__name__}: {str(error).splitlines()[0]}"
    own = [leaf for leaf in results if isinstance(leaf, torch.Tensor)]
    every = (group.units for group in channels.groups if group.inexact)
    inexact = cut.units & frozenset().union(*every)
    wanted = zeroed(with_values_of(largest, captured), channels, blocks, cut, args)
    reason = unlike(own, wanted, exact=not inexact)
    if inexact and not reason:
        return difference(largest, captured, channels, blocks, replace(cut, units=cut.units - inexact), args)
    return reason
