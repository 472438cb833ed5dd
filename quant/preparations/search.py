"""Finds the exponent that leaves each site's layers with the least error, `s_c = a_c^alpha / b_c^(1 - alpha)`."""

from __future__ import annotations

from collections.abc import Callable

import torch

STEPS = 20  # of alpha between 0 and 1, as in AWQ's search
_DEAD = 1e-5  # of the largest channel: smaller ones count as this large

Error = Callable[[torch.Tensor], float]


def balanced(numerator: torch.Tensor, denominator: torch.Tensor, alpha: float) -> torch.Tensor:
    """`numerator^alpha / denominator^(1 - alpha)`, `[C]`, brought to a geometric mean of 1."""
    above, below = (part.clamp(min=float(part.amax()) * _DEAD).clamp(min=1e-30) for part in (numerator, denominator))
    logarithm = alpha * above.log() - (1.0 - alpha) * below.log()
    return (logarithm - logarithm.mean()).exp()


def best_scale(numerator: torch.Tensor, denominator: torch.Tensor, error: Error) -> torch.Tensor | None:
    """The scale with the least error over all exponents; None where none is better than leaving the site alone.

    Args:
        numerator: `a`, of the activations, `[C]`.
        denominator: `b`, of the weights, `[C]`; ones for a scale of the activations alone.
        error: of the site's layers with a scale.
    """
    least, best = error(torch.ones_like(numerator)), None
    for step in range(STEPS + 1):
        scale = balanced(numerator, denominator, step / STEPS)
        found = error(scale)
        if found < least:
            least, best = found, scale
    return best
