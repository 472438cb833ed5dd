"""A histogram of a stream whose range is not known in advance, in bounded memory.

The bins span `[-2^k, 2^k)`; when a value falls outside, k grows and pairs of bins merge, which is exact. The
extremes are exact over all values; the counts come from about `SAMPLE` evenly spaced values of each update, which are
kept until there are `PENDING` of them and then counted together, so that a histogram costs little beside the layer
that makes the values.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from bitwright.quant.observers.extremes import extremes_of_row, in_memory_order
from bitwright.quant.observers.importance import Importance

BINS = 4096
SAMPLE = 1 << 13
PENDING = 1 << 15
# Below it the width of a bin would not be a normal float32; what is smaller shares the middle bins.
SMALLEST_LIMIT = 2.0**-100


class Histogram:
    """Counts, exact extremes, and the edges of the bins.

    Attributes:
        limit: the bins span `[-limit, limit)`; a power of two, 0.0 before any non-zero value.
        low: the smallest value.
        high: the largest value.
    """

    def __init__(self) -> None:
        self.limit = 0.0
        self.low = math.inf
        self.high = -math.inf
        self._counts = torch.zeros(BINS, dtype=torch.float64)
        self._pending = torch.empty(PENDING)
        self._weights = torch.ones(PENDING, dtype=torch.float64)
        self._weighed = False
        self._held = 0

    def update(self, values: torch.Tensor, importance: Importance | None = None) -> None:
        """Adds values of any shape; each counts once, or as much as its channel is important.

        Raises:
            NotFiniteError: NaN or infinity is among them.
        """
        flat = in_memory_order(values.detach())
        low, high = extremes_of_row(flat)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._reach(max(-low, high))
        step = _stride(flat.numel())
        sample = flat[::step]
        if self._held + sample.numel() > PENDING:
            self._count()
        place = slice(self._held, self._held + sample.numel())
        self._pending[place] = sample
        if importance is not None:
            weights = importance.of_every(values, step)
            self._weighed = True
            torch.mul(weights, importance.share(self._pending[place], weights), out=self._weights[place])
        elif self._weighed:
            self._weights[place] = 1.0
        self._held += sample.numel()

    @property
    def counts(self) -> torch.Tensor:
        """float64 `[BINS]`."""
        self._count()
        return self._counts

    def _count(self) -> None:
        sample, weights, self._held = self._pending[: self._held], self._weights[: self._held], 0
        if self.limit == 0.0:
            self._counts[BINS // 2] += weights.sum()
        else:
            # Halved, because the limit of the largest float32 values is not a float32.
            place = sample.mul_(0.5).div_(self.limit * 0.5).add_(1.0).mul_(BINS // 2)
            self._counts += torch.bincount(place.to(torch.int32).clamp_(0, BINS - 1), weights, minlength=BINS)

    def _reach(self, magnitude: float) -> None:
        if magnitude < self.limit or magnitude == 0.0:
            return
        wanted = max(2.0 ** math.frexp(magnitude)[1], SMALLEST_LIMIT)
        if self.limit == 0.0:
            self.limit = wanted  # the zeros that were counted lie in the middle bin of any limit
        while self.limit < wanted:
            inner = self._counts.reshape(-1, 2).sum(1)
            self._counts.zero_()
            self._counts[BINS // 4 : BINS // 4 + BINS // 2] = inner
            self.limit *= 2

    @property
    def centers(self) -> torch.Tensor:
        """float64 `[BINS]`, the middle of each bin."""
        width = 2 * self.limit / BINS
        return (torch.arange(BINS, dtype=torch.float64) + 0.5) * width - self.limit


@lru_cache(maxsize=1024)
def _stride(elements: int) -> int:
    """Coprime to the number of elements, thus to each dimension: no channel, row or column is left out."""
    stride = max(1, elements // SAMPLE)
    while math.gcd(stride, elements) > 1:
        stride += 1
    return stride
