"""What an error in each channel of a tensor weighs, for observers that balance errors.

That an error moves the results in proportion holds for small ones. Where one sample in hundreds drives a tensor ten
times as far as all others, cutting it off costs at most that sample, however far beyond the range it lies. So samples
count as in the loss of Geman and McClure (1985), `E / (E + t)`, whose weight on squares is `t^2 / (E + t)^2`, with the
sample's energy for E: those as loud as usual count alike, and one that is ten times as loud next to nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
        typical: the median energy of samples, `sum_c weights_c mean(x_c^2)`; infinity leaves all samples alike.
    """

    weights: torch.Tensor
    axis: int
    typical: float = math.inf

    def share(self, sample: torch.Tensor, weights: torch.Tensor) -> float:
        """What a tensor's errors count beside those of others.

        Args:
            sample: some of its values, `[n]`.
            weights: of their channels, float64 `[n]`.
        """
        if math.isinf(self.typical):
            return 1.0
        energy = float(sample.double().square_() @ weights) * len(self.weights) / sample.numel()
        return (SATURATION / (SATURATION + energy / self.typical)) ** 2

    def of_every(self, values: torch.Tensor, step: int) -> torch.Tensor:
        """The weights of every `step`-th value in memory order, float64."""
        order = memory_order(values)
        behind = math.prod(values.shape[dim] for dim in order[order.index(self.axis) + 1 :])
        return self.weights[_channels(values.numel(), step, behind, values.shape[self.axis])]


@lru_cache(maxsize=256)
def _channels(elements: int, step: int, behind: int, channels: int) -> torch.Tensor:
    """The channel of every `step`-th element, where `behind` of one channel follow each other."""
    return torch.arange(0, elements, step) // behind % channels
