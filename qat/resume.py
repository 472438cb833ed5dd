"""A model's own checkpoint is enough to go on: what training adds hangs in the model, and loading it is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from bitwright.qat.replay import CHILD
from bitwright.quant.errors import InputError
from bitwright.quant.plan import QuantPlan

WRONG_PLAN = "the checkpoint was made with another scheme or another network; give the same ones"


def fingerprint(plan: QuantPlan) -> bytes:
    """Equal for plans that quantize the same tensors in the same way: SHA-256."""
    specs = {**plan.activations, **plan.weights}
    lines = [f"{ref} {spec}" for ref, spec in sorted(specs.items())]
    groups = sorted(str(sorted(map(str, group))) for group in plan.groups)
    return hashlib.sha256("\n".join([*lines, *groups]).encode()).digest()


class Resumable(Protocol):
    """Who wants to know."""

    def before_load(self, step: int) -> None:
        """The checkpoint of a step is about to be loaded: the formats have to be those of that step."""

    def after_load(self, step: int) -> None:
        """It was."""


class _Following:
    """A hook of the model; copies of the model, such as an EMA, follow nobody."""

    def __init__(self, owner: Resumable | None, plan: torch.Tensor) -> None:
        self.owner, self.plan = owner, plan

    def __deepcopy__(self, memo: dict[int, Any]) -> _Following:
        return _Following(None, self.plan)

    def before(
        self, module: nn.Module, state: Mapping[str, Any], prefix: str, _metadata: Any, strict: bool, *_: Any
    ) -> None:
        """Refuses before anything is copied."""
        own = f"{prefix}{CHILD}."
        if f"{own}step" not in state:
            if strict:
                raise InputError(
                    "this checkpoint is of the float network, without scales; load it before the callback is attached"
                )
            return
        if not torch.equal(state[f"{own}plan"].cpu(), self.plan.cpu()):
            raise InputError(WRONG_PLAN)
        if self.owner is not None:
            self.owner.before_load(int(state[f"{own}step"]))

    def after(self, module: Any, _incompatible: Any) -> None:
        """The step is in the buffer now."""
        if self.owner is not None:
            self.owner.after_load(int(module.step))


def follow_loads(model: nn.Module, quantizers: nn.Module, owner: Resumable, plan: torch.Tensor) -> list[Any]:
    """Tells the owner whenever the model's checkpoint, or that of its quantizers, is loaded.

    Returns:
        Handles that end it.
    """
    hook = _Following(owner, plan)
    return [
        model.register_load_state_dict_pre_hook(hook.before),  # type: ignore[no-untyped-call]
        quantizers.register_load_state_dict_post_hook(hook.after),  # type: ignore[no-untyped-call]
    ]
