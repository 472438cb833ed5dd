"""A gated recurrent unit (Cho et al. 2014) unrolled over the rows of a picture.

Its two linear layers are called once a row, so that everything that is quantized has one scale for all rows.
"""

from __future__ import annotations

import torch
from torch import nn


class GatedUnit(nn.Module):
    """`h' = (1 - z) n + z h` with `z, r = sigmoid(...)`, `n = tanh(W x + r (U h))`."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.of_input, self.of_state = nn.Linear(inputs, 3 * hidden), nn.Linear(hidden, 3 * hidden)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs] and [N, hidden] to [N, hidden]."""
        own = self.of_input(x).chunk(3, 1)
        theirs = self.of_state(state).chunk(3, 1)
        update, reset = torch.sigmoid(own[0] + theirs[0]), torch.sigmoid(own[1] + theirs[1])
        new = torch.tanh(own[2] + reset * theirs[2])
        return new + update * (state - new)


class RowReader(nn.Module):
    """Reads the first channel of a picture from its first row to its last, then decides."""

    def __init__(self, *, size: int = 16, hidden: int = 96, classes: int = 10) -> None:
        super().__init__()
        self.hidden = hidden
        self.unit = GatedUnit(size, hidden)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, size, size] to logits [N, classes]."""
        state = torch.zeros(x.shape[0], self.hidden, dtype=x.dtype, device=x.device)
        rows = x.select(1, 0)
        for row in range(rows.shape[1]):
            state = self.unit(rows.select(1, row), state)
        logits: torch.Tensor = self.classifier(state)
        return logits
