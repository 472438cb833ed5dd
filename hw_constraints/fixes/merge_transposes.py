"""Two transposes become one or none; one that moves nothing becomes a reshape."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _by_hand(site: Site, settings: Settings) -> ByHand:
    return ByHand(note=f"the two transposes around this are one or none; {site.finding.suggestion}")


FIX = Fix(
    name="merge_transposes",
    summary="transposes are merged with each other, or become a reshape",
    exact=True,
    rules=frozenset(["layout_round_trip", "double_transpose"]),
    operators=frozenset({"permute", "transpose", "t"}),
    rewrite="merge_transposes",
    by_hand=_by_hand,
)
