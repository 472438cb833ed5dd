"""From a batch of any form to the positional arguments of the network's `forward`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree

from bitwright.quant.errors import InputError

Arguments = tuple[Any, ...]
ToArguments = Callable[[Any], Arguments]


def arguments_of(model: torch.nn.Module, inputs: Sequence[str | int] | None) -> ToArguments:
    """How to read the network's arguments out of a batch.

    With `inputs` the named parts (keys of a dict, places in a tuple) are the arguments, in that order. Without, a
    tensor is the only argument; of a dict the parts that `forward` has parameters for; of a tuple or list the first
    element, because the others are labels (itself taken apart when it is a tuple or a dict).

    Raises:
        InputError: when called, for a batch that has no such parts.
    """
    names = [each.name for each in inspect.signature(model.forward).parameters.values()]

    def read(batch: Any) -> Arguments:
        if inputs is not None:
            return tuple(_part(batch, key) for key in inputs)
        if isinstance(batch, torch.Tensor):
            return (batch,)
        if isinstance(batch, Mapping):
            return _by_parameter(batch, names)
        if isinstance(batch, tuple | list) and batch:
            first = batch[0]
            if isinstance(first, Mapping):
                return _by_parameter(first, names)
            return tuple(first) if isinstance(first, tuple | list) else (first,)
        raise InputError(f"data: a batch is {type(batch).__name__}; expected a tensor, a tuple, a list or a dict")

    return read


def _part(batch: Any, key: str | int) -> Any:
    try:
        return batch[key]
    except (KeyError, IndexError, TypeError):
        has = sorted(batch, key=str) if isinstance(batch, Mapping) else f"{len(batch)} parts"
        raise InputError(f"data.inputs = {key!r}: a batch ({type(batch).__name__}) has {has}") from None


def _by_parameter(batch: Mapping[str, Any], names: Sequence[str]) -> Arguments:
    """The parts of a dict that `forward` has parameters for, in the order of its parameters, without gaps."""
    present = [name in batch for name in names]
    count = sum(present)
    if not count or not all(present[:count]):
        raise InputError(
            f"data: a batch has the keys {sorted(batch)}, the model's forward takes {list(names)}; "
            "name the model's inputs in data.inputs"
        )
    return tuple(batch[name] for name in names[:count])


def first_rows(arguments: Arguments, rows: int) -> Arguments:
    """The first rows of every tensor, when all tensors share their first dimension; else the arguments as they are.

    Raises:
        InputError: there are fewer rows.
    """
    leaves, spec = pytree.tree_flatten(arguments)
    sizes = {leaf.shape[:1] for leaf in leaves if isinstance(leaf, torch.Tensor)}
    if len(sizes) != 1 or sizes == {torch.Size([])}:
        return arguments
    (have,) = sizes.pop()
    if have < rows:
        raise InputError(f"example_inputs.batch = {rows}: the loader's first batch has {have} rows")
    cut = [leaf[:rows] if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    result: Arguments = pytree.tree_unflatten(cut, spec)
    return result


def require_sizes(arguments: Arguments, example: Arguments) -> None:
    """That a batch differs from the example in the number of rows alone, as an artefact of fixed sizes needs it.

    Raises:
        InputError: a tensor has another size.
    """
    for leaf, wanted in zip(pytree.tree_leaves(arguments), pytree.tree_leaves(example), strict=False):
        if isinstance(leaf, torch.Tensor) and isinstance(wanted, torch.Tensor) and leaf.shape[1:] != wanted.shape[1:]:
            raise InputError(
                f"data: a batch to score holds {list(leaf.shape)}, the network was captured with {list(wanted.shape)}, "
                "and its artefact takes no other size; give samples of one size, or example_inputs of the size to score"
            )


def row_count(arguments: Any) -> int:
    """The first dimension that its tensors share; 1 when they share none."""
    leaves = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]
    sizes = {leaf.shape[:1] for leaf in leaves}
    return int(sizes.pop()[0]) if len(sizes) == 1 and torch.Size([]) not in sizes else 1


class CountedSamples:
    """Passes batches of arguments on and counts the rows in them."""

    def __init__(self, batches: Iterable[Arguments]) -> None:
        self.batches, self.count = batches, 0

    def __iter__(self) -> Iterator[Arguments]:
        for batch in self.batches:
            self.count += row_count(batch)
            yield batch
