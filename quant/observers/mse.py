"""The range with the least squared error of the quantized values."""

from __future__ import annotations

from typing import ClassVar

import torch

from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.observers.histogram import Histogram
from bitwright.quant.qparams import choose_qparams
from bitwright.quant.scheme import QParamsSpec


class MSEObserver:
    """Tries shrunken ranges and keeps the one with the least expected squared error over the histogram.

    `E[(x - fake_quantize(x))^2]` is evaluated with the spec's own format, so the same search serves integers and
    floats. Each side shrinks on its own, alternating, since activations are rarely symmetric.
    """

    name: ClassVar[str] = "mse"

    def __init__(self, spec: QParamsSpec, *, candidates: int = 64, smallest: float = 0.2, power: float = 2.0) -> None:
        if candidates < 2 or not 0 < smallest < 1:
            raise ValueError(f"candidates = {candidates}, smallest = {smallest}; allowed: >= 2, between 0 and 1")
        self.spec = spec
        self.factors = torch.linspace(smallest, 1.0, candidates)
        self.power = power
        self.histogram = Histogram()

    def update(self, values: torch.Tensor) -> None:
        """Counts `values`."""
        self.histogram.update(values)

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The best range, never wider than what was seen."""
        seen = self.histogram
        low, high = torch.tensor(min(seen.low, 0.0)), torch.tensor(max(seen.high, 0.0))
        occupied = seen.counts > 0
        centers, counts = seen.centers[occupied].float(), seen.counts[occupied]
        if seen.limit == 0.0:
            return low, high
        if self.spec.symmetric:
            factor = self._best(low, high, centers, counts, both=True)
            return low * factor, high * factor
        for _ in range(2):
            high = high * self._best(low, high, centers, counts, upper=True)
            low = low * self._best(low, high, centers, counts, upper=False)
        return low, high

    def _best(
        self,
        low: torch.Tensor,
        high: torch.Tensor,
        centers: torch.Tensor,
        counts: torch.Tensor,
        *,
        upper: bool = False,
        both: bool = False,
    ) -> torch.Tensor:
        lows = low * (torch.ones_like(self.factors) if upper and not both else self.factors)
        highs = high * (self.factors if upper or both else torch.ones_like(self.factors))
        qparams = choose_qparams(lows, highs, self.spec, axis=0)
        values = centers.expand(len(self.factors), -1)
        error = (values - fake_quantize(values, qparams)).abs().pow(self.power).double() @ counts
        # Of equal errors the widest range wins: it clips least.
        return self.factors[len(error) - 1 - int(torch.argmin(error.flip(0)))]


OBSERVER = MSEObserver
