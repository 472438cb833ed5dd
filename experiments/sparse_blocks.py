"""Patterns of zeros that blocks of a network keep while it is trained in float."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import torch

    from bitwright.qat.sparsity import Sparsity

_NAMED = 8  # modules in a message


def sparse_blocks(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, sparsity: Mapping[str, str]
) -> Sparsity | None:
    """Keeps a pattern of zeros in blocks of a network while it is trained, from the first step on.

    Args:
        model: the network.
        optimizer: of its parameters.
        sparsity: patterns by path of a block, all of them the same; none is None.

    Raises:
        InputError: there are several, a block is not there, or no weight can have it.
    """
    from bitwright.nas.objective.sparse_blocks import layers_of
    from bitwright.qat.sparsity import Sparsity

    if not sparsity:
        return None
    patterns = sorted(set(sparsity.values()))
    if len(patterns) > 1:
        raise InputError(f"patterns {' and '.join(patterns)} in one network; a training keeps one of them")
    there = {path for path, _ in model.named_modules()}
    if missing := [path for path in sparsity if path not in there]:
        names = sorted(there - {""})
        choices = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
        raise InputError(f"train.sparsity = {missing[0]!r}: the network has no such module; there are {choices}")
    sparse = {path for block in sparsity for path in layers_of(model, block)}
    return Sparsity(model, optimizer, pattern=patterns[0], skip=set(layers_of(model, "")) - sparse)
