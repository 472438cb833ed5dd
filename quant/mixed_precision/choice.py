"""An assignment of formats with what it costs and how much noise it makes; and which of several nothing beats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bitwright.quant.mixed_precision.networks import decibels


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One assignment.

    Attributes:
        formats: by group.
        costs: of the whole network, by the cost's name.
        noise: Σ (result - float result)² ÷ Σ float result², by running it.
        estimated_noise: the same as the table of sensitivities sums it up.
        found_by: `program`, `greedy`, `refined` or `all NAME`.
    """

    formats: Mapping[str, str]
    costs: Mapping[str, float]
    noise: float
    estimated_noise: float
    found_by: str

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise of the results, dB."""
        return decibels(self.noise)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "formats": dict(self.formats),
            "costs": dict(self.costs),
            "sqnr_db": self.sqnr_db,
            "estimated_sqnr_db": decibels(max(self.estimated_noise, 0.0)),
            "found_by": self.found_by,
        }


def front(choices: Iterable[Choice], cost: str) -> tuple[Choice, ...]:
    """Those that no other beats in cost and noise, the cheapest first."""
    found: list[Choice] = []
    for each in sorted(choices, key=lambda choice: (choice.costs[cost], choice.noise)):
        if not found or each.noise < found[-1].noise:
            found.append(each)
    return tuple(found)
