"""Samples of a layer side by side, until there are enough of them to be multiplied together.

Of the late layers of a network one sample has 49 positions: by itself it costs more calls than arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from bitwright.quant.reconstruct.moments import Moments

_TOGETHER = 1024  # positions
_COLUMN_BYTES = 8 << 20  # of all of them together; the memory of larger tensors is asked for anew each time


@dataclass
class Gathering:
    """What one half of the samples shows of a layer.

    Attributes:
        weight: in float, `[G, R, K]`.
        bias: `[G, R]`.
        bounds: what the activation behind the layer lets through.
        moments: take what has been gathered.
        told: called with each sample and what each of its positions counts.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    bounds: tuple[float, float]
    moments: Moments
    told: Callable[[int, float], None]
    _samples: list[int] = field(default_factory=list)
    _columns: list[torch.Tensor] = field(default_factory=list)
    _truth: list[torch.Tensor] = field(default_factory=list)

    def add(self, sample: int, columns: torch.Tensor, truth: torch.Tensor) -> None:
        """Inputs of a sample, `[G, K, n]`, and the layer's results in float, `[G, R, n]`."""
        self._samples.append(sample)
        self._columns.append(columns)
        self._truth.append(truth)
        positions = sum(part.shape[2] for part in self._columns)
        if positions >= _TOGETHER or positions * columns[:, :, 0].nbytes >= _COLUMN_BYTES:
            self.flush()

    def flush(self) -> None:
        """Counts what waits; to be called behind the last sample."""
        if not self._samples:
            return
        sizes = [part.shape[2] for part in self._columns]
        columns, truth = torch.cat(self._columns, 2), torch.cat(self._truth, 2)
        self._columns.clear()
        self._truth.clear()
        result = torch.baddbmm(self.bias[:, :, None], self.weight, columns)
        if self.bounds != (-torch.inf, torch.inf):
            result, truth = result.clamp_(*self.bounds), truth.clamp_(*self.bounds)
        for sample, share in zip(self._samples, self.moments.add(columns, truth - result, truth, sizes), strict=True):
            self.told(sample, share)
        self._samples.clear()
