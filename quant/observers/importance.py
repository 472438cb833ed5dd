"""What an error in each channel of a tensor weighs, for observers that balance errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bitwright.quant.observers.extremes import memory_order


@dataclass(frozen=True)
class Importance:
    """A weight for each channel.

    Attributes:
        weights: float64 `[C]`, not negative.
        axis: the channels'.
    """

    weights: torch.Tensor
    axis: int

    def of_every(self, values: torch.Tensor, step: int) -> torch.Tensor:
        """The weights of every `step`-th value in memory order, float64."""
        order = memory_order(values)
        behind = math.prod(values.shape[dim] for dim in order[order.index(self.axis) + 1 :])
        places = torch.arange(0, values.numel(), step)
        return self.weights[places // behind % values.shape[self.axis]]
