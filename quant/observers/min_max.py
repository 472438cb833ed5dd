"""The whole range that was seen."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from bitwright.quant.observers.extremes import extremes
from bitwright.quant.scheme import QParamsSpec


class MinMaxObserver:
    """Smallest and largest value over all data."""

    name: ClassVar[str] = "min_max"

    def __init__(self, spec: QParamsSpec) -> None:
        self.low, self.high = math.inf, -math.inf

    def update(self, values: torch.Tensor) -> None:
        """Widens the range to contain `values`."""
        low, high = extremes(values)
        self.low, self.high = min(self.low, low), max(self.high, high)

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What was seen."""
        return torch.tensor(self.low), torch.tensor(self.high)


OBSERVER = MinMaxObserver
