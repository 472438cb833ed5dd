"""The largest magnitude in each channel of a tensor, and what follows from it: who is loud, who is dead.

Uniform rounding with a scale in proportion to the peak makes noise in proportion to the square of the peak. With one
scale for all C channels each has that of the loudest; with scales of their own

    10 log10(max peak² / mean peak²)  dB

of the noise would go, at equal numbers of values a channel. That is what one loud channel costs the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class ChannelPeaks:
    """What the channels of a tensor reach.

    Attributes:
        channels: how many.
        dead: how many show nothing but one value, such as zero.
        loudest: the channel that reaches farthest.
        loudness: how many times as far as the median of those that are not dead.
        own_scales_gain_db: of the noise, if each channel had a scale of its own; 0 where it has.
    """

    channels: int
    dead: int
    loudest: int
    loudness: float
    own_scales_gain_db: float

    @classmethod
    def of(cls, low: torch.Tensor, high: torch.Tensor, *, own_scales: bool) -> ChannelPeaks:
        """From the extremes of each channel.

        Args:
            low: the smallest value of each, `[C]`.
            high: the largest.
            own_scales: whether each channel has a scale of its own.
        """
        peaks = torch.maximum(low.abs(), high.abs()).double()
        alive = high > low
        most, energy = float(peaks.max()), float(peaks.square().mean())
        median = float(peaks[alive].median()) if alive.any() else most
        gain = 10.0 * math.log10(most**2 / energy) if energy > 0 and not own_scales else 0.0
        return cls(
            channels=len(peaks),
            dead=int((~alive).sum()),
            loudest=int(peaks.argmax()),
            loudness=most / median if median > 0 else 1.0,
            own_scales_gain_db=gain,
        )


def channel_extremes(values: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest and the largest value of each channel, both `[C]`."""
    rows = values.movedim(axis, 0).flatten(1)
    return rows.amin(1), rows.amax(1)
