"""Where a captured network begins in the user's model: at the model itself, or at each of its regions."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch._compile import _disable_dynamo

from bitwright.qat.call_sites import CallSites, Site
from bitwright.qat.calls import CallCounter, is_repeated
from bitwright.quant.errors import InputError

# Arguments and keyword arguments of the forward that trained last; empty before the first.
LastForward = list[tuple[Any, Any]]


@dataclass(frozen=True, eq=False)
class Entry:
    """The module whose forward is one captured network.

    Attributes:
        module: the user's model, or a region of it.
        inputs: the sites of its tensor arguments, in their flattened order; None where one stays float.
    """

    module: nn.Module
    inputs: tuple[Site | None, ...]


class Forward:
    """The forward pre-hook of the user's model: remembers what it was called with.

    Attributes:
        last: the arguments of the forward that trained last.
    """

    def __init__(self) -> None:
        self.last: LastForward = []

    @_disable_dynamo
    def __call__(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        """Refuses copies that `nn.DataParallel` made."""
        if getattr(model, "_is_replica", False):
            raise InputError(
                "nn.DataParallel copies the model in every step, and its copies train other scales; "
                "use DistributedDataParallel, one process a GPU"
            )
        if model.training and not is_repeated():
            self.last[:] = [(args, kwargs)]


class Beginning:
    """The forward pre-hook of an entry: counts calls inside it from zero and quantizes its arguments."""

    def __init__(self, mode: CallSites, counting: list[CallCounter], inputs: tuple[Site | None, ...]) -> None:
        self.mode, self.counting, self.inputs = mode, counting, inputs

    @_disable_dynamo
    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Runs before each forward of the entry."""
        if self.mode.frames:
            self.mode.reset()
        for each in self.counting:
            each.seen = 0
        return self._rounded(module, args, kwargs) if any(self.inputs) else None

    def _rounded(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        places = [i for i in self._in_order(module, args, kwargs) if isinstance(leaves[i], torch.Tensor)]
        if len(places) < len(self.inputs):
            raise InputError(
                f"forward got {len(places)} tensors; the model was prepared with {len(self.inputs)}: "
                "give the same arguments as the calibration batches have"
            )
        for place, site in zip(places, self.inputs, strict=False):
            if site is not None:
                leaves[place] = site(leaves[place])
        return pytree.tree_unflatten(leaves, spec)  # type: ignore[no-any-return]

    @staticmethod
    def _in_order(module: nn.Module, args: Any, kwargs: Any) -> list[int]:
        """The places of the flattened arguments in the order of forward's parameters, however they are called."""
        names = list(inspect.signature(module.forward).parameters)
        known = {name: place for place, name in enumerate(names)}
        first = len(pytree.tree_leaves(args))
        groups = [(-1, list(range(first)))]
        for name, value in kwargs.items():
            count = len(pytree.tree_leaves(value))
            groups.append((known.get(name, len(names)), list(range(first, first + count))))
            first += count
        return [place for _, places in sorted(groups, key=lambda group: group[0]) for place in places]
