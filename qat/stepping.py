"""Each step of the optimizer counts once, whoever tells of it: the optimizer's hooks, or the loop by `on_step`."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from bitwright.qat.checks import refuse_rate
from bitwright.qat.replay import Replay
from bitwright.qat.scale_group import ScalesApart
from bitwright.quant.errors import InputError


class Stepped(Protocol):
    """Who trains."""

    replay: Replay
    scale_lr: float | None

    def before_step(self) -> None:
        """An optimizer is about to step."""

    def after_step(self, step: int) -> None:
        """It did."""


class Stepping:
    """Counts steps.

    Args:
        owner: who trains; held weakly, so that a callback that is dropped leaves nothing behind.
        optimizer: that will step; None to wait for one that holds the model's parameters.

    Attributes:
        step: how many were taken.
        scale_rate: the learning rate of the scales in the last step; None before one, and where none of them learns.
    """

    def __init__(self, owner: Stepped, optimizer: torch.optim.Optimizer | None) -> None:
        self.step = 0
        self.scale_rate: float | None = None
        self._owner = weakref.ref(owner)
        self._is_counted = False
        self._is_waiting = optimizer is None
        self._apart = ScalesApart(owner.scale_lr)
        if optimizer is None:
            self._handles = [register_optimizer_step_pre_hook(_weak(self, "_before"))]
            self._handles.append(register_optimizer_step_post_hook(_weak(self, "_after")))
        else:
            self._handles = [optimizer.register_step_pre_hook(_weak(self, "_before"))]
            self._handles.append(optimizer.register_step_post_hook(_weak(self, "_after")))

    def asked(self) -> None:
        """The loop says that a step was taken."""
        if self._is_counted:
            self._is_counted = False
        else:
            self._count()

    def end(self) -> None:
        """No optimizer is followed any more."""
        self._apart.put_back()
        for handle in self._handles:
            handle.remove()

    def _count(self) -> None:
        owner = self._owner()
        if owner is not None:
            self.step += 1
            owner.after_step(self.step)

    def _before(self, optimizer: torch.optim.Optimizer, has_closure: bool) -> None:
        owner = self._owner()
        if owner is None or not self._trains(optimizer, owner):
            return
        scales = [scale for scale in owner.replay.parts.quantizers.parameters() if scale.requires_grad]
        try:
            if self._is_waiting:
                self._apart.take_out(optimizer, list(owner.replay.parts.quantizers.parameters()))
            self.scale_rate = _rate_of(optimizer, scales)
            if self.scale_rate is not None:
                refuse_rate(self.scale_rate, self.step)
            if not has_closure and not _will_skip(optimizer):  # a closure has yet to compute the gradients
                owner.before_step()
        except InputError:
            self._apart.put_back()
            raise

    def _after(self, optimizer: torch.optim.Optimizer, _has_closure: bool) -> None:
        owner = self._owner()
        if owner is not None and self._trains(optimizer, owner):
            self._apart.put_back()
            self._count()
            self._is_counted = True

    def _trains(self, optimizer: torch.optim.Optimizer, owner: Stepped) -> bool:
        """Whether it is the model's: an optimizer that was made later holds parameters that are the model's by now."""
        if not self._is_waiting:
            return True
        own = {id(parameter) for parameter in owner.replay.model.parameters()}
        return any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"])


def _rate_of(optimizer: torch.optim.Optimizer, scales: Sequence[nn.Parameter]) -> float | None:
    """Of the group that the scales are in, which is the last one but where the user made another choice."""
    for group in reversed(optimizer.param_groups) if scales else ():
        if any(each is scales[0] for each in group["params"]):
            return float(group["lr"])
    return None


def _weak(stepping: Stepping, name: str) -> Any:
    reference = weakref.ref(stepping)

    def hook(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        alive = reference()
        if alive is not None:
            closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
            getattr(alive, name)(optimizer, closure is not None)

    return hook


def _will_skip(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a `GradScaler` has told a fused optimizer that gradients overflowed, so that it changes nothing."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)
