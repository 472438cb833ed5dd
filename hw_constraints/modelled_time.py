"""The time of a whole network by its target's cost model, for decisions between two forms of it."""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.hw_constraints.cost.estimate import estimate
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target_types import Capability, Target
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph
from bitwright.quant.plan import QuantPlan


@dataclass(frozen=True, kw_only=True)
class ModelledTime:
    """What a network takes.

    Attributes:
        us: microseconds of the operators that the model knows.
        unknown: how many operators it has no figure for, such as those on a host.
    """

    us: float
    unknown: int

    def is_worse_than(self, other: ModelledTime) -> bool:
        """Whether it surely is: it takes longer, and not because the model knows more of its operators."""
        return self.us > other.us and self.unknown >= other.unknown


def modelled_time(graph: Graph, target: Target, plan: QuantPlan | None) -> ModelledTime | None:
    """The time of a network; None where the target serves no cost, or the network cannot be lowered to it."""
    if Capability.COST not in target.capabilities:
        return None
    try:
        estimated = estimate(lower(graph, target, plan=plan))
    except InputError:
        return None
    return ModelledTime(us=estimated.us, unknown=len(estimated.not_modelled))
