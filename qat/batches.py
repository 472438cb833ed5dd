"""From what a loader yields to the arguments of the network's `forward`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from bitwright.quant.captured_model import Keywords
from bitwright.quant.errors import InputError

Arguments = tuple[Any, ...]
ToArguments = Callable[[Any], Arguments]


def default_arguments(model: nn.Module) -> ToArguments:
    """Reads the arguments out of a batch.

    A tensor is the only argument; of a dict the parts that `forward` has parameters for, in their order; of a tuple
    or list the first element, because the others are labels.
    """
    names = list(inspect.signature(model.forward).parameters)

    def read(batch: Any) -> Arguments:
        if isinstance(batch, tuple | list) and batch:
            batch = batch[0]
        if isinstance(batch, torch.Tensor):
            return (batch,)
        if isinstance(batch, Mapping):
            present = [name for name in names if name in batch]
            if present and present == names[: len(present)]:
                return tuple(batch[name] for name in present)
        raise InputError(
            f"calibration: cannot tell forward's arguments ({', '.join(names)}) from a batch of type "
            f"{type(batch).__name__}; give arguments=function, which takes a batch and returns them as a tuple"
        )

    return read


def rows_of(args: Arguments) -> int:
    """The first dimension that all tensors share; 1 when they share none."""
    sizes = {leaf.shape[:1] for leaf in pytree.tree_leaves(args) if isinstance(leaf, torch.Tensor)}
    return int(sizes.pop()[0]) if len(sizes) == 1 and torch.Size([]) not in sizes else 1


def first_rows(args: Arguments, rows: int) -> Arguments:
    """The first rows of every tensor, when they share their first dimension; else the arguments as they are."""
    if rows_of(args) <= rows:
        return args
    result: Arguments = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor[:rows], args)
    return result


def rows(args: Arguments, count: int) -> list[Arguments]:
    """The first `count` rows of every tensor as batches of one; else the arguments as they are."""
    have = rows_of(args)
    if have == 1:
        return [args]
    return [
        pytree.tree_map_only(torch.Tensor, lambda tensor: tensor[row : row + 1], args)  # noqa: B023 - called at once
        for row in range(min(count, have))
    ]


def first_samples(batches: Iterable[Any], read: ToArguments, samples: int) -> Iterator[Arguments]:
    """Arguments of batches from the front until `samples` rows are through; the last is cut.

    Raises:
        InputError: there is no batch at all.
    """
    left = samples
    for batch in batches:
        args = first_rows(read(batch), left)
        yield args
        left -= rows_of(args)
        if left <= 0:
            return
    if left == samples:
        raise InputError("calibration: the loader is empty; give at least one batch")


def call_with(module: nn.Module, args: Arguments) -> Any:
    """Calls a module with arguments whose last element may be `Keywords`."""
    positional, keywords = parted(args)
    return module(*positional, **keywords)


def parted(args: Arguments) -> tuple[Arguments, dict[str, Any]]:
    """Positional and keyword arguments of a tuple that may end in `Keywords`."""
    return (args[:-1], dict(args[-1])) if args and isinstance(args[-1], Keywords) else (args, {})


def joined(args: Arguments, kwargs: dict[str, Any]) -> Arguments:
    """The inverse of `parted`."""
    return (*args, Keywords(kwargs)) if kwargs else args
