"""Tensors that `forward` computes once, keeps in plain attributes and reads ever after, such as tables of biases.

They look like lost state to a tracer, but do not depend on what the network was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree

from bitwright.quant.preserve import plain_attributes, preserved


def keeps_only_caches(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether what a call leaves in plain attributes is the same after a call with other numbers.

    The other numbers are the example's own, moved a little and out of proportion; integers and masks stay.
    """
    others = pytree.tree_map_only(torch.Tensor, _moved, (args, dict(kwargs)))
    left = []
    for given, named in ((args, dict(kwargs)), others):
        with preserved(model):
            try:
                fill(model, given, named)
            except Exception:  # the user's forward may raise anything at numbers that it did not expect
                return False
            left.append(_tensors(model))
    first, second = left
    return first.keys() == second.keys() and all(
        value.shape == second[name].shape and torch.equal(value, second[name]) for name, value in first.items()
    )


@torch.no_grad()
def fill(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """One call in eval mode, for the sake of what it leaves behind."""
    enter_eval(model)
    copied, named = pytree.tree_map_only(torch.Tensor, torch.clone, (args, dict(kwargs)))
    model(*copied, **named)


def enter_eval(model: torch.nn.Module) -> None:
    """Eval mode, for a model that is not in it already: some forget their tables whenever a mode is set."""
    if any(module.training for module in model.modules()):
        model.eval()


def _moved(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point() or not tensor.numel():
        return tensor
    ramp = torch.linspace(0.9, 1.1, tensor.numel(), device=tensor.device).view(tensor.shape)
    return (tensor * ramp + 0.01).to(tensor.dtype)


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor in a plain attribute, also in objects' lists and dictionaries, by where it is."""
    found = {}
    for path, module in model.named_modules():
        for name, value in plain_attributes(module).items():
            holder = vars(value) if _is_object(value) else value
            for place, leaf in enumerate(pytree.tree_leaves(holder)):
                if isinstance(leaf, torch.Tensor):
                    found[f"{path}.{name}.{place}"] = leaf.detach().clone()
    return found


def _is_object(value: Any) -> bool:
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, torch.Tensor | torch.nn.Module | type)
        and not callable(value)
    )
