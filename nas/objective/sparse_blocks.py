"""Patterns of zeros in blocks of a network: which weights can have them, and how a network looks with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from bitwright.qat.sparsity.patterns import Pattern

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def layers_of(model: nn.Module, block: str) -> dict[str, nn.Module]:
    """The layers with weights in a block, by path; the block itself may be one."""
    inside = model.get_submodule(block).named_modules(prefix=block)
    return {path: module for path, module in inside if isinstance(module, _LAYERS)}


def dense_blocks(model: nn.Module, sparsity: Mapping[str, str]) -> dict[str, str]:
    """Blocks in which no weight can have the block's pattern, each with the reason of its first layer."""
    found = {}
    for block, text in sparsity.items():
        pattern = Pattern.parse(text)
        misfits = [pattern.misfit(layer.weight.shape) for layer in layers_of(model, block).values()]  # type: ignore[arg-type]
        if all(misfits):
            found[block] = misfits[0] if misfits else "it has no layer with weights"
    return found


@contextmanager
def has_zeros(model: nn.Module, sparsity: Mapping[str, str]) -> Iterator[None]:
    """While this lasts, the smallest weights of each block are zero in the block's pattern."""
    before: list[tuple[nn.Parameter, torch.Tensor]] = []
    with torch.no_grad():
        for block, text in sparsity.items():
            pattern = Pattern.parse(text)
            for layer in layers_of(model, block).values():
                weight = layer._parameters["weight"]
                if weight is not None and not pattern.misfit(weight.shape):
                    before.append((weight, weight.clone()))
                    weight.mul_(pattern.keeps(weight))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, values in before:
                weight.copy_(values)
