"""A loop over the parts of a tensor becomes one pass over the batch."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _by_hand(site: Site, settings: Settings) -> ByHand:
    axis = site.node.attributes.get("dim", 0)
    return ByHand(note=f"one pass over x.flatten(0, 1) instead of the loop, unflattened to axis {axis} afterwards")


FIX = Fix(
    name="batch_loop",
    summary="a loop over the parts of a tensor becomes one pass over the batch",
    exact=True,
    rules=frozenset(["unrolled_loop"]),
    operators=frozenset({"stack"}),
    rewrite="batch_loop",
    by_hand=_by_hand,
)
