"""Channels taken out of the user's own model, proven: the smaller model computes what the whole one does without them.

What `forward` does with sizes that it has as constants (`x.view(-1, 512)`) no analysis of a graph can tell, so every
removal is tried on the example arguments and compared with the captured network, whose activations are set to zero
there. What fails is refused with the reason and put back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from bitwright.qat.sparsity.in_place import remove_units
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.channel_graph import ChannelGraph, ChannelGroup, channel_graph
from bitwright.quant.errors import InputError
from bitwright.quant.graph import TensorRef
from bitwright.quant.preserve import preserved

# Sums of fewer terms are added in another order: 2^12 roundings of the largest result.
_ROUNDINGS = 4096.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Removable:
    """What can be taken out of a model.

    Attributes:
        channels: all that the graph allows.
        groups: those that were tried and proven, in the order in which layers make them.
        refused: the others, with the reason: by name.
    """

    captured: CapturedModel
    channels: ChannelGraph
    groups: tuple[ChannelGroup, ...]
    refused: Mapping[str, str]


def removable(model: nn.Module, args: tuple[Any, ...], *, inexact: bool = False) -> Removable:
    """Finds the groups of channels of a model and tries each: half of it is taken out, compared and put back.

    Args:
        model: the user's module; it is as before afterwards.
        args: example arguments of `forward`.
        inexact: also allow what changes other channels (those that a layer norm takes statistics over); only what
            such a network returns is not compared.

    Raises:
        CaptureError: see `quant.capture`.
    """
    captured = capture(model, args)
    channels = channel_graph(captured.graph)
    proven, refused = [], {ref.module_path: f"stay: {reason}" for ref, reason in channels.kept.items()}
    for group in channels.groups:
        if group.inexact and not inexact:
            refused[group.name] = f"would change others: {group.inexact}"
            continue
        reason = _tried(model, captured, channels, group.units[::2], args, exact=not group.inexact)
        if reason:
            refused[group.name] = reason
        else:
            proven.append(group)
    return Removable(captured=captured, channels=channels, groups=tuple(proven), refused=refused)


def _tried(
    model: nn.Module,
    captured: CapturedModel,
    channels: ChannelGraph,
    removed: Collection[int],
    args: tuple[Any, ...],
    *,
    exact: bool,
) -> str:
    """Why a removal fails; "" when it does not."""
    change = remove_units(model, channels, removed)
    try:
        return _difference(model, captured, channels, removed, args, exact=exact)
    finally:
        change.undo()


def remove(
    model: nn.Module,
    found: Removable,
    removed: Collection[int],
    args: tuple[Any, ...],
    *,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Takes units out of a model for good.

    Args:
        model: the user's module, with the weights that it had when `found` was made or others of these shapes.
        found: of that model.
        removed: units of proven groups; of each group one has to stay.
        args: example arguments of `forward`.
        optimizer: what it remembers of the parameters is cut alike.

    Raises:
        InputError: a group would be empty, or the smaller model does not compute what the whole one does without
            them; the model is as it was.
    """
    gone = set(removed)
    for group in found.groups:
        if gone.issuperset(group.units):
            raise InputError(f"group {group.name}: all of its {len(group.units)} channels would go; keep at least one")
    unknown = gone.difference(*[()], *(group.units for group in found.groups))
    if unknown:
        raise InputError(f"{len(unknown)} of the units belong to no group that was proven to be removable")
    touched = [group for group in found.groups if gone.intersection(group.units)]
    captured = capture(model, args)
    change = remove_units(model, found.channels, gone, optimizer=optimizer)
    exact = not any(group.inexact for group in touched)
    reason = _difference(model, captured, found.channels, gone, args, exact=exact)
    if reason:
        change.undo()
        raise InputError(f"{', '.join(group.name for group in touched[:3])}: {reason}; the model is as it was")


def without(
    captured: CapturedModel, channels: ChannelGraph, removed: Collection[int], args: tuple[Any, ...]
) -> list[torch.Tensor]:
    """What a network returns when some of its channels are zero wherever they run."""
    return captured.outputs(captured.run(*args, transform=silencing(channels, removed)))


def silencing(channels: ChannelGraph, removed: Collection[int]) -> Callable[[TensorRef, torch.Tensor], torch.Tensor]:
    """What makes channels zero wherever they run, as a transform of `CapturedModel.run`."""
    gone = torch.tensor(sorted(removed))
    masks = {
        ref: [torch.isin(torch.from_numpy(strand), gone) for strand in strands]
        for ref, strands in channels.strands.items()
        if ref.is_op_result
    }

    def silence(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        for mask in masks.get(ref, ()):
            tensor = tensor.masked_fill(mask.to(tensor.device), 0)
        return tensor

    return silence


def _difference(
    model: nn.Module,
    captured: CapturedModel,
    channels: ChannelGraph,
    removed: Collection[int],
    args: tuple[Any, ...],
    *,
    exact: bool,
) -> str:
    try:
        with preserved(model), torch.no_grad():
            model.eval()
            results = pytree.tree_leaves(model(*args))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        return f"forward has sizes as constants: {str(error).splitlines()[0]}"
    own = [leaf for leaf in results if isinstance(leaf, torch.Tensor)]
    return unlike(own, without(captured, channels, removed, args), exact=exact)


def unlike(results: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], *, exact: bool = True) -> str:
    """How results differ by more than sums of fewer terms may; "" when they do not.

    Args:
        results: of a smaller network.
        wanted: of the whole one with what it lacks set to zero.
        exact: compare values, not only shapes.
    """
    for result, want in zip(results, wanted, strict=True):
        if result.shape != want.shape:
            return f"the result would be {list(result.shape)} in place of {list(want.shape)}"
        if not exact or not result.is_floating_point():
            continue
        allowed = _ROUNDINGS * torch.finfo(want.dtype).eps * float(want.abs().max())
        largest = float((result - want).abs().max())
        if not largest <= allowed:
            return f"the smaller network differs by {largest:.3g} where {allowed:.3g} is rounding"
    return ""
