"""Weights that go to and fro between two codes: seen, dampened and frozen.

Nagel, Fournarakis, Bondarenko, Blankevoort 2022, Overcoming Oscillations in Quantization-Aware Training. Under
straight-through gradients a weight whose best value lies between two codes is pushed across the border again and
again; it ends in one of the two by chance, and batch norms see both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bitwright.quant.learned_steps import Grid


def codes_of(weight: torch.Tensor, divisor: torch.Tensor, grid: Grid) -> torch.Tensor:
    """`clamp(round(w / s), low, high)`, float32 of the shape of the weight; `divisor` broadcasts against it."""
    return grid.nearest_(weight / divisor).float()


def dampening_gradient(weight: torch.Tensor, divisor: torch.Tensor, grid: Grid) -> torch.Tensor:
    """The gradient of `|| fq(w) - clip(w) ||^2` with `fq(w)` taken as a constant (section 4.1).

    `2 (w - s * round(w / s))` inside the grid; 0 where the weight is clipped, which does not oscillate.
    """
    scaled = weight / divisor
    middle = grid.nearest_(scaled.clone()).float() * divisor
    inside = (scaled > grid.low) & (scaled < grid.high)
    return torch.where(inside, 2.0 * (weight - middle), 0.0)


def gradient_factor(
    gradient: torch.Tensor, weight: torch.Tensor, divisor: torch.Tensor, grid: Grid, delta: float
) -> torch.Tensor:
    """`1 + delta * sign(g) * (v - c)`: element-wise gradient scaling (Lee et al. 2021), in codes.

    Args:
        gradient: with respect to the weight, straight-through.
        weight: that it belongs to.
        divisor: what the weight is divided by to give `v`; a negative one (a folded batch norm may turn a channel
            round) turns both signs, which cancels.
        grid: the codes `c`.
        delta: how much longer a gradient is at the border of a code than in its middle, times two.
    """
    distance = (weight - codes_of(weight, divisor, grid) * divisor) / divisor.abs()
    return 1.0 + delta * gradient.sign() * distance.clamp_(-0.5, 0.5)


@dataclass(eq=False)
class Oscillation:
    """What one weight tensor did so far; every field has its shape.

    Attributes:
        codes: of the step before, float32.
        direction: of the last change of each code: -1, 1, or 0 before the first; int8.
        frequency: moving average of turning back, `f` of the paper.
        average: moving average of the codes, `psi`.
        frozen: which weights stay at their code.
    """

    codes: torch.Tensor
    direction: torch.Tensor
    frequency: torch.Tensor
    average: torch.Tensor
    frozen: torch.Tensor

    @classmethod
    def start(cls, codes: torch.Tensor) -> Oscillation:
        """Before the first step."""
        zeros = torch.zeros_like(codes)
        return cls(codes.clone(), zeros.to(torch.int8), zeros, codes.clone(), zeros.bool())

    def follow(self, codes: torch.Tensor, momentum: float) -> None:
        """Counts the codes after a step (algorithm 1).

        A weight oscillates in this step if its code has changed, in the other direction than the last time.
        """
        change = (codes - self.codes).sign().to(torch.int8)
        moved = change != 0
        turned = moved & (change == -self.direction)
        self.frequency = torch.lerp(self.frequency, turned.float(), momentum)
        self.average = torch.lerp(self.average, codes, momentum)
        self.direction = torch.where(moved, change, self.direction)
        self.codes = codes.clone()

    def freeze(self, threshold: float) -> None:
        """Freezes what turns back too often at the code where it was most."""
        new = (self.frequency > threshold) & ~self.frozen
        self.codes = torch.where(new, self.average.round(), self.codes)
        self.frozen |= new

    def share(self, threshold: float) -> float:
        """Which share of the weights oscillates more often than `threshold`, the frozen ones left out."""
        return float(((self.frequency > threshold) & ~self.frozen).float().mean())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All fields by name."""
        return dict(vars(self))
