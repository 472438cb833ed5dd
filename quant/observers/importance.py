"""What an error in each channel of a tensor weighs, for observers that balance errors.

That an error moves the results in proportion holds for small ones. Where one sample in hundreds drives a tensor ten
times as far as all others, cutting it off costs at most that sample, however far beyond the range it lies. So samples
count as in the loss of Geman and McClure (1985), `E / (E + t)`, whose weight on squares is `t^2 / (E + t)^2`, with the
sample's energy for E: those as loud as usual count alike, and one that is ten times as loud next to nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from bitwright.quant.observers.extremes import memory_order

# `t` in shares of the median energy. MobileNetV2 in 8 bits, 128 pictures calibrate and 72 others judge: 20.8 dB with
# plain squares, 22.1 with 1.0, 22.3 with 0.3, 22.5 with 0.1 and below. Silent samples count at most as if nothing else
# were there: 120 times as much as usual ones.
SATURATION = 0.1


@dataclass(frozen=True)
class Importance:
    """A weight for each channel.

    Attributes:
        weights: float64 `[C]`, not negative.
        axis: the channels'.
        typical: the median energy of samples, in the unit of `energy`; infinity leaves all samples alike.
    """

    weights: torch.Tensor
    axis: int
    typical: float = math.inf

    def energy(self, values: torch.Tensor) -> float:
        """The mean square of a sample, each channel as much as it weighs."""
        others = [axis for axis in range(values.dim()) if axis != self.axis]
        power = values.square().mean(others) if others else values.square()
        return float(power.double() @ self.weights)

    def seen(self, energies: Iterable[float]) -> Importance:
        """With the typical energy of samples that were seen."""
        typical = statistics.median(energies)
        return replace(self, typical=typical) if typical > 0 else self

    def of_sample(self, values: torch.Tensor) -> Importance:
        """The weights in one sample."""
        if math.isinf(self.typical):
            return self
        loudness = self.energy(values) / self.typical
        return replace(self, weights=self.weights * (SATURATION / (SATURATION + loudness)) ** 2)

    def of_every(self, values: torch.Tensor, step: int) -> torch.Tensor:
        """The weights of every `step`-th value in memory order, float64."""
        order = memory_order(values)
        behind = math.prod(values.shape[dim] for dim in order[order.index(self.axis) + 1 :])
        return self.weights[_channels(values.numel(), step, behind, values.shape[self.axis])]


@lru_cache(maxsize=256)
def _channels(elements: int, step: int, behind: int, channels: int) -> torch.Tensor:
    """The channel of every `step`-th element, where `behind` of one channel follow each other."""
    return torch.arange(0, elements, step) // behind % channels
