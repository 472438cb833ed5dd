"""A gated recurrent unit (Cho et al. 2014) unrolled over the rows of a picture.

Its two linear layers are called once a row, so that everything that is quantized has one scale for all rows.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class GatedUnit(nn.Module):
    """`h' = (1 - z) n + z h` with gates `z, r = hard_sigmoid(...)` and `n = hard_tanh(W x + r (U h))`.

    Piecewise linear gates are what small devices compute: no table, no
    exponential.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.of_input, self.of_state = nn.Linear(inputs, 3 * hidden), nn.Linear(hidden, 3 * hidden)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs] and [N, hidden] to [N, hidden]."""
        own = self.of_input(x).chunk(3, 1)
        theirs = self.of_state(state).chunk(3, 1)
        update, reset = F.hardsigmoid(own[0] + theirs[0]), F.hardsigmoid(own[1] + theirs[1])
        new = F.hardtanh(own[2] + reset * theirs[2])
        return new + update * (state - new)


class RowReader(nn.Module):
    """Reads the first channel of a picture from its first row, where the state begins, to its last; then decides."""

    def __init__(self, *, size: int = 16, hidden: int = 96, classes: int = 10) -> None:
        super().__init__()
        self.begin, self.unit = nn.Linear(size, hidden), GatedUnit(size, hidden)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, size, size] to logits [N, classes]."""
        rows = x.select(1, 0)
        state = F.hardtanh(self.begin(rows.select(1, 0)))
        for row in range(1, rows.shape[1]):
            state = self.unit(rows.select(1, row), state)
        logits: torch.Tensor = self.classifier(state)
        return logits
