"""Activation checkpointing that begins in the middle of a module's forward, which cannot be trained."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.checkpoint

from bitwright.qat.layers import EagerForward
from bitwright.quant.errors import InputError


@dataclass(frozen=True)
class Surroundings:
    """What a checkpoint changes around a call.

    Attributes:
        hooks: for tensors that are saved, the innermost; None without any.
        gradients: whether they are recorded.
    """

    hooks: Any
    gradients: bool

    @classmethod
    def now(cls) -> Surroundings:
        """As it is at this moment."""
        top = torch._C._autograd._top_saved_tensors_default_hooks(False)
        return cls(None if top is None else top[0], torch.is_grad_enabled())


def refuse_checkpoint_within(module: torch.nn.Module, entered: Surroundings, function: str) -> None:
    """Holds that no activation checkpoint has begun since a module's forward did.

    The backward pass repeats what lies in a checkpoint without the module around it, so that nothing would tell which
    function calls are the module's, and they would not be quantized the second time.

    Args:
        module: whose forward calls the function.
        entered: when that began.
        function: its name.

    Raises:
        InputError: one has.
    """
    now = Surroundings.now()
    if now == entered or not _is_checkpoint(entered, now):
        return
    own = next(kind for kind in type(module).__mro__ if not issubclass(kind, EagerForward))
    raise InputError(
        f"{function} in {own.__name__}.forward is called in an activation checkpoint that begins in the middle of "
        "it, which the backward pass repeats without the module; checkpoint whole modules, as in "
        "checkpoint(self.block, x, use_reentrant=False)"
    )


def _is_checkpoint(entered: Surroundings, now: Surroundings) -> bool:
    source = torch.utils.checkpoint.__name__
    if now.hooks is not entered.hooks and getattr(now.hooks, "__module__", "") == source:
        return True
    if now.gradients or not entered.gradients:
        return False
    frame: Any = sys._getframe()  # a reentrant one only turns gradients off
    while frame is not None and frame.f_globals.get("__name__") != source:
        frame = frame.f_back
    return frame is not None
