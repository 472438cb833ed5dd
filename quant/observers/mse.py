"""The range with the least squared error of the quantized values."""

from __future__ import annotations

from typing import ClassVar

import torch

from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.observers.histogram import Histogram
from bitwright.quant.observers.importance import Importance
from bitwright.quant.qparams import choose_qparams
from bitwright.quant.scheme import QParamsSpec


class MSEObserver:
    """Tries shrunken ranges and keeps the one with the least expected squared error over the histogram.

    `E[(x - fake_quantize(x))^2]`, weighted by what each channel does to the results where that is known, is evaluated
    with the spec's own format, so the same search serves integers and floats. Both sides shrink together first, then
    each on its own, alternating, since activations are rarely symmetric; alternating alone stops early where the zero
    point rounds.
    """

    name: ClassVar[str] = "mse"
    weighs: ClassVar[bool] = True

    def __init__(self, spec: QParamsSpec, *, candidates: int = 64, smallest: float = 0.2, power: float = 2.0) -> None:
        if candidates < 2:
            raise ValueError(f"candidates = {candidates}; allowed: >= 2")
        if not 0 < smallest < 1:
            raise ValueError(f"smallest = {smallest}; allowed: 0 < smallest < 1")
        if power <= 0:
            raise ValueError(f"power = {power}; allowed: > 0")
        self.spec = spec
        self.factors = torch.linspace(smallest, 1.0, candidates)
        self.power = power
        self.histogram = Histogram()

    def update(self, values: torch.Tensor, importance: Importance | None = None) -> None:
        """Counts `values`, each as much as its channel weighs."""
        self.histogram.update(values, importance)

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The best range, never wider than what was seen."""
        seen = self.histogram
        low, high = torch.tensor(min(seen.low, 0.0)), torch.tensor(max(seen.high, 0.0))
        occupied = seen.counts > 0
        centers, counts = seen.centers[occupied].float(), seen.counts[occupied]
        if seen.limit == 0.0:
            return low, high
        alone = torch.ones_like(self.factors)
        low, high = self._best(low * self.factors, high * self.factors, centers, counts)
        for _ in range(0 if self.spec.symmetric else 2):
            low, high = self._best(low * alone, high * self.factors, centers, counts)
            low, high = self._best(low * self.factors, high * alone, centers, counts)
        return low, high

    def _best(
        self, lows: torch.Tensor, highs: torch.Tensor, centers: torch.Tensor, counts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The candidate with the least error; of equal ones the last and widest, since it clips least."""
        qparams = choose_qparams(lows, highs, self.spec, axis=0)
        values = centers.expand(len(lows), -1)
        error = (values - fake_quantize(values, qparams)).abs().pow(self.power).double() @ counts
        best = len(error) - 1 - int(torch.argmin(error.flip(0)))
        return lows[best], highs[best]


OBSERVER = MSEObserver
