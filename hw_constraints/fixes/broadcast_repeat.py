"""A repeat whose readers broadcast falls away."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _by_hand(site: Site, settings: Settings) -> ByHand:
    return ByHand(expression="{x}", note="its readers broadcast; no copies are needed")


FIX = Fix(
    name="broadcast_repeat",
    summary="a repeat whose readers broadcast falls away",
    exact=True,
    rules=frozenset(["repeat_copies"]),
    operators=frozenset({"repeat", "expand"}),
    rewrite="broadcast_repeat",
    by_hand=_by_hand,
)
