"""A histogram of a stream whose range is not known in advance, in bounded memory.

The bins span `[-2^k, 2^k)`; when a value falls outside, k grows and pairs of bins merge, which is exact. The
extremes are exact over all values; the counts come from about `SAMPLE` evenly spaced values of each update, so that a
histogram costs little beside the layer that makes the values.
"""

from __future__ import annotations

import math

import torch

BINS = 4096
SAMPLE = 1 << 13
# Below it the width of a bin would not be a normal float32; what is smaller shares the middle bins.
SMALLEST_LIMIT = 2.0**-100


class Histogram:
    """Counts, exact extremes, and the edges of the bins.

    Attributes:
        counts: float64 `[BINS]`.
        limit: the bins span `[-limit, limit)`; a power of two, 0.0 before any non-zero value.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.limit = 0.0
        self.low = math.inf
        self.high = -math.inf

    def update(self, values: torch.Tensor) -> None:
        """Adds values of any shape; they must be finite."""
        flat = _in_memory_order(values.detach())
        low, high = (float(v) for v in torch.aminmax(flat))
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._reach(max(-low, high))
        sample = flat[:: _stride(flat.numel())].to(torch.float32)
        if self.limit == 0.0:
            self.counts[BINS // 2] += sample.numel()
        else:
            # Halved, because the limit of the largest float32 values is not a float32.
            place = sample * 0.5 / (self.limit * 0.5) + 1.0
            bins = (place * (BINS // 2)).to(torch.int64).clamp_(0, BINS - 1)
            self.counts += torch.bincount(bins, minlength=BINS)

    def _reach(self, magnitude: float) -> None:
        if magnitude < self.limit or magnitude == 0.0:
            return
        wanted = max(2.0 ** math.frexp(magnitude)[1], SMALLEST_LIMIT)
        if self.limit == 0.0:
            zeros = float(self.counts.sum())
            self.counts.zero_()
            self.counts[BINS // 2] = zeros
            self.limit = wanted
        while self.limit < wanted:
            inner = self.counts.reshape(-1, 2).sum(1)
            self.counts.zero_()
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = inner
            self.limit *= 2

    @property
    def centers(self) -> torch.Tensor:
        """float64 `[BINS]`, the middle of each bin."""
        width = 2 * self.limit / BINS
        return (torch.arange(BINS, dtype=torch.float64) + 0.5) * width - self.limit


def _stride(elements: int) -> int:
    """Coprime to the number of elements, thus to each dimension: no channel, row or column is left out."""
    stride = max(1, elements // SAMPLE)
    while math.gcd(stride, elements) > 1:
        stride += 1
    return stride


def _in_memory_order(values: torch.Tensor) -> torch.Tensor:
    """The values as one row, without a copy when they lie densely in memory in whatever layout (channels last)."""
    by_stride = sorted(range(values.dim()), key=values.stride, reverse=True)
    return values.permute(by_stride).reshape(-1)
