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
        sparsity: patterns by path of a block; none is None.

    Raises:
        InputError: a block is not there, or no weight can have its pattern.
    """
    from bitwright.qat.sparsity import Sparsity

    if not sparsity:
        return None
    there = {path for path, _ in model.named_modules()}
    if missing := [path for path in sparsity if path not in there]:
        names = sorted(there - {""})
        choices = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
        raise InputError(f"train.sparsity = {missing[0]!r}: the network has no such module; there are {choices}")
    return Sparsity(model, optimizer, pattern=dict(sparsity))
