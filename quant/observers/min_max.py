"""The whole range that was seen."""

from __future__ import annotations

from typing import ClassVar

import torch

from bitwright.quant.scheme import QParamsSpec


class MinMaxObserver:
    """Smallest and largest value over all data."""

    name: ClassVar[str] = "min_max"

    def __init__(self, spec: QParamsSpec) -> None:
        self.low = torch.tensor(torch.inf)
        self.high = torch.tensor(-torch.inf)

    def update(self, values: torch.Tensor) -> None:
        """Widens the range to contain `values`."""
        low, high = torch.aminmax(values)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What was seen."""
        return self.low, self.high


OBSERVER = MinMaxObserver
