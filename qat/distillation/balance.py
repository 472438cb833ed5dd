"""Weights of loss terms that find themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class Balance:
    """Uncertainty weighting in closed form.

    Kendall, Gal & Cipolla 2018 (Multi-Task Learning Using Uncertainty to Weigh Losses, eq. 10) train a log-variance
    `s_k` for each term: `sum_k exp(-s_k) L_k + s_k`. For given losses that is least at `s_k = log L_k` (Kirchdorfer et
    al. 2024, Analytical Uncertainty-Based Loss Weighting), which needs no parameters, no optimizer and no time to be
    learned: each term is divided by a moving average of itself. A term that has become small counts as much as
    one that has not.

    Args:
        momentum: weight of the newest value in the moving averages.
        shares: how much each term counts beside the others; 1 for those not named.
    """

    def __init__(self, *, momentum: float = 0.02, shares: Mapping[str, float] | None = None) -> None:
        self.momentum, self.shares = momentum, dict(shares or {})
        self.averages: dict[str, float] = {}

    def total(self, terms: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """`sum_k share_k L_k / average_k`; the averages move only where gradients are asked for.

        Args:
            terms: scalars by name, at least one.
        """
        weighed = []
        for name, term in terms.items():
            value = float(term.detach())
            before = self.averages.get(name, value)
            average = before + self.momentum * (value - before)
            if torch.is_grad_enabled():
                self.averages[name] = average
            weighed.append(self.shares.get(name, 1.0) * term / max(average, _SMALLEST))
        return torch.stack(weighed).sum()

    def state_dict(self) -> dict[str, Any]:
        """The moving averages, for a checkpoint."""
        return dict(self.averages)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with them."""
        self.averages = {name: float(value) for name, value in state.items()}


# A term below it has nothing left to teach; dividing by it would make noise of it.
_SMALLEST = 1e-6
