"""Clips the rarest values."""

from __future__ import annotations

from typing import ClassVar

import torch

from bitwright.quant.observers.histogram import BINS, Histogram
from bitwright.quant.scheme import QParamsSpec


class PercentileObserver:
    """Keeps `percentile` % of the values; the rest is clipped, half on each side unless the data has one sign."""

    name: ClassVar[str] = "percentile"

    def __init__(self, spec: QParamsSpec, *, percentile: float = 99.99) -> None:
        if not 50 < percentile <= 100:
            raise ValueError(f"percentile = {percentile}; allowed: 50 < percentile <= 100")
        self.percentile = percentile
        self.histogram = Histogram()

    def update(self, values: torch.Tensor) -> None:
        """Counts `values`."""
        self.histogram.update(values)

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The clipped range, never wider than what was seen."""
        seen = self.histogram
        outside = (100.0 - self.percentile) / 100.0
        two_sided = seen.low < 0 < seen.high
        cumulative = seen.counts.cumsum(0) / seen.counts.sum()
        tail = outside / 2 if two_sided else outside
        width = 2 * seen.limit / BINS
        low_bin = int(torch.searchsorted(cumulative, torch.tensor(tail, dtype=torch.float64)))
        high_bin = int(torch.searchsorted(cumulative, torch.tensor(1.0 - tail, dtype=torch.float64)))
        low = low_bin * width - seen.limit if seen.low < 0 else seen.low
        high = (high_bin + 1) * width - seen.limit if seen.high > 0 else seen.high
        return torch.tensor(max(low, seen.low)), torch.tensor(min(high, seen.high))


OBSERVER = PercentileObserver
