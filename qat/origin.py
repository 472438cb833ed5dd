"""Where a NaN began: the last forward again, module by module."""

from __future__ import annotations

from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from bitwright.qat.locate import kept_buffers


def origin_of_nan(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Says in words where the first value arises that is not finite; modes, buffers and generators stay as they are.

    Args:
        model: the user's module, as it trains.
        args: of its last forward.
        kwargs: likewise.
    """
    names = {module: name for name, module in model.named_modules()}
    for name, parameter in model.named_parameters():
        if not _is_finite(parameter):
            return f"parameter {name} is not finite already"
    if not _is_finite((args, kwargs)):
        return "the batch itself is not finite"
    found: list[str] = []

    def look(module: nn.Module, given: Any, given_by_name: Any, result: Any) -> None:
        if not found and not _is_finite(result):
            found.append(_words(names[module], module, was_finite=_is_finite((given, given_by_name))))

    handles = [module.register_forward_hook(look, with_kwargs=True) for module in names]
    try:
        with torch.no_grad(), kept_buffers(model), torch.random.fork_rng():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "all activations of this forward are finite, so it began in the loss or its gradient"


def _words(name: str, module: nn.Module, *, was_finite: bool) -> str:
    where = f"{name or 'the model'} ({type(module).__name__})"
    return f"it began in {where}" if was_finite else f"it began between modules, before {where}"


def _is_finite(values: Any) -> bool:
    floating = [
        leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    ]
    return all(bool(torch.isfinite(leaf.detach()).all()) for leaf in floating)
