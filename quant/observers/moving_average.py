"""The average range of a batch: one outlier batch does not decide."""

from __future__ import annotations

from typing import ClassVar

import torch

from bitwright.quant.observers.extremes import extremes
from bitwright.quant.scheme import QParamsSpec


class MovingAverageObserver:
    """Exponential moving average of each batch's extremes (Jacob et al. 2018, section 3.1)."""

    name: ClassVar[str] = "moving_average"

    def __init__(self, spec: QParamsSpec, *, momentum: float = 0.1) -> None:
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum = {momentum}; allowed: 0 < momentum <= 1")
        self.momentum = momentum
        self.extremes: torch.Tensor | None = None

    def update(self, values: torch.Tensor) -> None:
        """Moves towards this batch's extremes."""
        seen = torch.tensor(extremes(values))
        self.extremes = seen if self.extremes is None else self.extremes + self.momentum * (seen - self.extremes)

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The averaged extremes."""
        assert self.extremes is not None, "a range is asked for after an update"
        return self.extremes[0], self.extremes[1]


OBSERVER = MovingAverageObserver
