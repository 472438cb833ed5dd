"""What was computed twice is computed once."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site
from bitwright.hw_constraints.operators import OPERATORS


def _by_hand(site: Site, settings: Settings) -> ByHand:
    return ByHand(note="the same was computed before; keep that result in a variable")


FIX = Fix(
    name="merge_duplicates",
    summary="what was computed twice is computed once",
    exact=True,
    rules=frozenset(["duplicate_computation"]),
    operators=frozenset(OPERATORS),
    rewrite="merge_duplicates",
    by_hand=_by_hand,
)
