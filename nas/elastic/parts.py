"""Which part of a larger network's tensors a smaller network of the same names has, from shapes and the channel graph.

Of each group of channels the first are kept, wherever they lie: behind a concatenation these are the first of each
part, in packed queries, keys and values the first heads of each third. Of kernels the centre is kept, and of any other
dimension the first places.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from bitwright.nas.elastic.elastic import Places, Share
from bitwright.quant.channel_graph import ChannelGraph
from bitwright.quant.errors import InputError

T = TypeVar("T")

# So many candidates are remembered; the shares of a network of a hundred tensors are some 50 KB.
REMEMBERED = 256


def remembered(memory: dict[str, T], key: str, make: Callable[[], T]) -> T:
    """What stands under a candidate's key, made if it is not there; the oldest are forgotten."""
    if key not in memory:
        if len(memory) >= REMEMBERED:
            del memory[next(iter(memory))]
        memory[key] = make()
    return memory[key]


def named_tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers under the first of their names."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def parts(
    largest: nn.Module, network: nn.Module, channels: ChannelGraph | None, removed: Collection[int] | None = None
) -> dict[str, Share]:
    """The shares of a network.

    Args:
        largest: has every tensor of `network` under the same name, with the same rank and no smaller.
        network: the smaller one; only its shapes matter.
        channels: of `largest`; without it every dimension but those of kernels keeps its first places.
        removed: units of `channels` that the network lacks; found from its shapes when not given.

    Raises:
        InputError: a tensor is no part of one of the largest network: names it.
    """
    own = named_tensors(network)
    whole, first_name = _aliases(largest)
    taken: dict[str, Mapping[int, npt.NDArray[np.int64]]] = {}
    if channels is not None:
        gone = removed_units(channels, own) if removed is None else removed
        taken = {first_name[ref.module_path]: axes for ref, axes in channels.without(gone).items()}
    shares = {}
    for name, tensor in own.items():
        _check_larger(name, tensor, whole.get(name))
        owner = largest.get_submodule(name.rpartition(".")[0])
        places: dict[int, Places] = {}
        for dimension, (kept, size) in enumerate(zip(tensor.shape, whole[name].shape, strict=True)):
            if kept == size:
                continue
            if isinstance(owner, _ConvNd) and dimension > 1:
                places[dimension] = slice((size - kept) // 2, (size - kept) // 2 + kept)
            else:
                places[dimension] = _places(taken.get(first_name[name], {}).get(dimension), kept)
        shares[name] = Share(tensor=first_name[name], places=places)
    return shares


def _aliases(network: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors under all of their names, and for each name the first one of its tensor."""
    every = {
        **dict(network.named_parameters(remove_duplicate=False)),
        **dict(network.named_buffers(remove_duplicate=False)),
    }
    first: dict[int, str] = {}
    for name, tensor in every.items():
        first.setdefault(id(tensor), name)
    return every, {name: first[id(tensor)] for name, tensor in every.items()}


def _check_larger(name: str, tensor: torch.Tensor, whole: torch.Tensor | None) -> None:
    if whole is None:
        found = "which has none of that name"
    elif whole.dim() != tensor.dim() or any(a > b for a, b in zip(tensor.shape, whole.shape, strict=True)):
        found = f"where it has shape {list(whole.shape)}"
    else:
        return
    raise InputError(
        f"tensor {name} {list(tensor.shape)} is no part of the largest network, {found}; candidates share weights by "
        "the names of their layers, and the largest choices together must make the largest network"
    )


def _places(taken: npt.NDArray[np.int64] | None, kept: int) -> Places:
    if taken is None or len(taken) != kept:  # nothing is known of these channels
        return slice(0, kept)
    if taken[-1] - taken[0] == kept - 1:
        return slice(int(taken[0]), int(taken[0]) + kept)
    return torch.from_numpy(taken)


def removed_units(channels: ChannelGraph, own: Mapping[str, torch.Tensor]) -> list[int]:
    """The last units of each group, so many that the rest fits the shapes of a network; `own` are its tensors."""
    removed: list[int] = []
    for group in channels.groups:
        for ref, axis in group.axes:
            units = channels.units_along(ref, axis)
            assert units is not None  # a group has only such axes
            if ref.module_path in own and np.isin(units, group.units).all():
                # Each unit of a group stands as often on an axis as any other.
                kept = own[ref.module_path].shape[axis] * len(group.units) // len(units)
                removed += group.units[kept:]
                break
    return removed
