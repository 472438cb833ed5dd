"""Takes places out of parameters, or exchanges them, in the user's own modules; `forward` stays as it is written.

Parameters stay the same objects, so that optimizers, schedulers and hooks keep them; what an optimizer remembers of
each is cut alike. What modules know of their own shape (`in_channels`, `groups`, a head count that a view divides by)
is set to the new one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from bitwright.quant.channel_graph import ChannelGraph, Cuts
from bitwright.quant.graph import TensorRef

# Operators whose sizes `forward` may take from attributes of its module.
_SIZED = frozenset({"reshape", "view", "unflatten", "expand", "split", "split_with_sizes", "slice", "channel_shuffle"})


@dataclass(eq=False)
class Change:
    """What was changed in a model, so that it can be taken back."""

    tensors: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    remembered: list[tuple[dict[str, Any], str, torch.Tensor]] = field(default_factory=list)
    attributes: list[tuple[nn.Module, str, Any]] = field(default_factory=list)

    def undo(self) -> None:
        """Puts everything back."""
        for tensor, before in reversed(self.tensors):
            _set_values(tensor, before)
        for state, name, before in reversed(self.remembered):
            state[name] = before
        for module, name, before in reversed(self.attributes):
            setattr(module, name, before)


def take(model: nn.Module, cuts: Cuts, *, optimizer: torch.optim.Optimizer | None = None) -> Change:
    """Keeps of each parameter and buffer only the places named, in the order named.

    Args:
        model: the user's module; gradients of what is cut are dropped.
        cuts: for each parameter, by axis, where the places of the new one come from.
        optimizer: moments of the parameters are cut alike.
    """
    change = Change()
    for ref, axes in cuts.items():
        owner, _, name = ref.module_path.rpartition(".")
        module = model.get_submodule(owner)
        tensor = getattr(module, name)
        places = {axis: torch.from_numpy(index).to(tensor.device) for axis, index in axes.items()}
        change.tensors.append((tensor, tensor.data))
        for state in [] if optimizer is None else [optimizer.state.get(tensor, {})]:
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == tensor.shape:
                    change.remembered.append((state, key, value))
                    state[key] = _taken(value, places)
        before = tensor.shape
        _set_values(tensor, _taken(tensor.data, places))
        if name == "weight" and tensor.shape != before:
            _tell_stock_module(module, tensor, before, change)
    return change


def _set_values(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """Gives a parameter values of another shape.

    As long as the last loss is alive, so is the node of autograd that accumulates the parameter's gradient, and it
    remembers the old shape. torch makes a new one when the type changes, so it does once in between.
    """
    tensor.grad = None
    if values.is_floating_point():
        tensor.data = values.to(torch.float16 if values.dtype != torch.float16 else torch.float32)
    tensor.data = values


def _taken(values: torch.Tensor, places: Mapping[int, torch.Tensor]) -> torch.Tensor:
    for axis, index in places.items():
        values = values.index_select(axis, index)
    return values.contiguous()


def remove_units(
    model: nn.Module,
    channels: ChannelGraph,
    removed: Collection[int],
    *,
    optimizer: torch.optim.Optimizer | None = None,
) -> Change:
    """Takes units of channels out of a model, and tells its modules.

    Args:
        model: the module that was captured.
        channels: of that capture.
        removed: units.
        optimizer: see `take`.
    """
    change = take(model, channels.without(removed), optimizer=optimizer)
    for node in channels.graph.nodes:
        if node.op not in _SIZED:
            continue
        module = model.get_submodule(node.module_path)
        if not type(module).__module__.startswith("torch.nn."):
            _tell_own_module(module, channels, (node.tensors[0], *node.outputs), removed, change)
    return change


def _tell_own_module(
    module: nn.Module, channels: ChannelGraph, refs: tuple[TensorRef, ...], removed: Collection[int], change: Change
) -> None:
    """Attributes that are the size of an axis become its new size; so do lists of the sizes of parts.

    Args:
        module: whose forward calls the operator.
        channels: of the network.
        refs: the operator's operand and results.
        removed: units.
        change: notes what was set.
    """
    shapes = [(channels.graph.tensors[ref].shape, channels.shape_without(ref, removed)) for ref in refs]
    sizes: dict[Any, Any] = {
        old: new for before, after in shapes for old, new in zip(before, after, strict=True) if old != new
    }
    if not sizes:
        return
    results = shapes[1:]
    for axis in range(len(results[0][0])):
        parts = [[shape[axis] for shape in each] for each in zip(*results, strict=True)]
        sizes[tuple(parts[0])] = parts[1]
    for name, value in list(vars(module).items()):
        key = tuple(value) if isinstance(value, list | tuple) else value
        if type(value) not in (int, list, tuple) or name.startswith("_") or not _hashable(key) or key not in sizes:
            continue
        new = sizes[key] if isinstance(value, int) else type(value)(sizes[key])
        change.attributes.append((module, name, value))
        setattr(module, name, new)


def _hashable(key: Any) -> bool:
    return isinstance(key, int) or all(isinstance(each, int) for each in key)


def _tell_stock_module(module: nn.Module, weight: torch.Tensor, before: torch.Size, change: Change) -> None:
    """`in_channels` and its kin, by the shape that the weight has now."""
    told: dict[str, Any] = {}
    out, inner = weight.shape[0], weight.shape[1] if weight.dim() > 1 else 1
    if isinstance(module, _ConvTransposeNd):
        groups = module.groups if module.groups == 1 else out
        told = {"groups": groups, "in_channels": out, "out_channels": inner * groups}
    elif isinstance(module, _ConvNd):
        groups = module.groups * out // before[0] if inner == 1 and module.groups > 1 else module.groups
        told = {"groups": groups, "in_channels": inner * groups, "out_channels": out}
    elif isinstance(module, nn.Linear):
        told = {"in_features": inner, "out_features": out}
    elif isinstance(module, _NormBase):
        told = {"num_features": out}
    elif isinstance(module, nn.GroupNorm):
        told = {"num_channels": out}
    elif isinstance(module, nn.LayerNorm):
        told = {"normalized_shape": tuple(weight.shape)}
    elif isinstance(module, nn.Embedding):
        told = {"embedding_dim": inner}
    elif isinstance(module, nn.PReLU):
        told = {"num_parameters": out}
    for name, value in told.items():
        change.attributes.append((module, name, getattr(module, name)))
        setattr(module, name, value)
