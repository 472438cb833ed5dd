"""ReLUs that need not run in training: rounding to a grid that begins at 0 clips what they would clip.

`round(relu(x))` is `round(x)` on such a grid, with the same codes, the same gradient and two passes over memory less.
In eval mode, and wherever somebody else looks at what the ReLU returns, it runs as ever.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import nn

# What clips values below 0, and above its ceiling.
CEILINGS = {"relu": math.inf, "relu6": 6.0}
_MODULES: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.ReLU6: "relu6"}


def rectifier_of(module: nn.Module) -> str:
    """The name of the function that a module is; "" when it is none of these."""
    return _MODULES.get(type(module), "")


class Rounds(Protocol):
    """Who rounds what a rectifier returns."""

    def begins_at_zero(self, x: torch.Tensor) -> bool:
        """Whether its grid does, for a tensor of this kind."""


def can_rest(name: str, rounds: Rounds, x: torch.Tensor) -> bool:
    """Whether a rectifier's result is rounded in a way that clips as it would; in training alone.

    Args:
        name: of the rectifier.
        rounds: who rounds its result.
        x: its operand.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or not x.requires_grad:
        return False
    if x.device.type != "cpu" and math.isfinite(CEILINGS[name]):
        return False  # the ceiling's code would have to be read from the device
    return rounds.begins_at_zero(x)


class Resting:
    """A ReLU in place in the user's module tree, whose result a hook rounds."""

    returned: Any

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        """As the module's own, or `x` itself where the hook clips."""
        if not torch.compiler.is_compiling() and self.returned.rests(self, x):
            return x
        return super().forward(x)  # type: ignore[misc,no-any-return]
