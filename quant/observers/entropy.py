"""The range with the least information lost."""

from __future__ import annotations

from typing import ClassVar

import torch

from bitwright.quant.observers.histogram import BINS, Histogram
from bitwright.quant.scheme import QParamsSpec


class EntropyObserver:
    """Least Kullback-Leibler divergence between the values and their quantized selves.

    Migacz, "8-bit inference with TensorRT", GTC 2017: for each threshold the outliers are counted into the last bin,
    the rest is merged into as many levels as the format has, spread back over the occupied bins and compared.
    """

    name: ClassVar[str] = "entropy"

    def __init__(self, spec: QParamsSpec, *, candidates: int = 128) -> None:
        if candidates < 2:
            raise ValueError(f"candidates = {candidates}; allowed: >= 2")
        self.levels = 1 << min(spec.format.bits, 8)
        self.candidates = candidates
        self.histogram = Histogram()

    def update(self, values: torch.Tensor) -> None:
        """Counts `values`."""
        self.histogram.update(values)

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The best range, never wider than what was seen."""
        seen = self.histogram
        if seen.limit == 0.0:
            return torch.tensor(0.0), torch.tensor(0.0)
        half = BINS // 2
        one_sided = seen.low >= 0
        counts = seen.counts[half:].clone() if one_sided else seen.counts[half:] + seen.counts[:half].flip(0)
        # Zero is exact in every format: its spike (ReLU) would only drag the threshold down to itself.
        counts[0] = counts[1]
        levels = self.levels if one_sided else self.levels // 2
        stops = sorted({int(stop) for stop in torch.linspace(min(levels, half), half, self.candidates)})
        losses = torch.stack([_divergence(counts, stop, levels) for stop in stops])
        threshold = stops[int(torch.argmin(losses))] * seen.limit / half
        return torch.tensor(max(seen.low, -threshold)), torch.tensor(min(seen.high, threshold))


def _divergence(counts: torch.Tensor, stop: int, levels: int) -> torch.Tensor:
    reference = counts[:stop].clone()
    reference[-1] += counts[stop:].sum()
    level = torch.arange(stop) * levels // stop
    occupied = (counts[:stop] > 0).double()
    total = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, counts[:stop])
    members = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, occupied)
    spread = (total / members.clamp(min=1))[level] * occupied
    if spread.sum() == 0 or reference.sum() == 0:
        return torch.tensor(torch.inf, dtype=torch.float64)
    p, q = reference / reference.sum(), spread / spread.sum()
    # Bins that are empty in q but not in p would give infinity; the smallest probability keeps it finite.
    q = q.clamp(min=1e-12)
    return torch.where(p > 0, p * (p / q).log(), torch.zeros_like(p)).sum()


OBSERVER = EntropyObserver
