"""What a network costs, and how that is found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bitwright.quant.graph import Graph
from bitwright.quant.plan import QuantPlan


class NetworkCost(Protocol):
    """What a whole network costs in some unit: measured, predicted from a table, or modelled."""

    def __call__(self, graph: Graph, plan: QuantPlan) -> float:
        """The cost of a network under a plan; its share by layer is found by asking for many plans."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One quantity that can be limited.

    Attributes:
        name: `latency`, `size`, `energy`.
        unit: of its values.
        of: finds it out.
        origin: `measured`, `modelled` or `counted`.
    """

    name: str
    unit: str
    of: NetworkCost
    origin: str = "modelled"

    def said(self, value: float) -> str:
        """A value with its unit."""
        return f"{value:.4g} {self.unit}"
