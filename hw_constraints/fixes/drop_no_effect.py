"""An operator that changes nothing falls away."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site
from bitwright.quant.no_effect import NO_EFFECT_OPERATORS


def _by_hand(site: Site, settings: Settings) -> ByHand:
    return ByHand(expression="{x}", note=f"{site.node.op} changes nothing here; leave it out")


FIX = Fix(
    name="drop_no_effect",
    summary="an operator that changes nothing falls away",
    exact=True,
    rules=frozenset(["redundant_operator", "cast_round_trip", "operator_support", "shape_limits"]),
    operators=NO_EFFECT_OPERATORS,
    rewrite="drop_no_effect",
    by_hand=_by_hand,
)
