"""The best elements from one topk."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _by_hand(site: Site, settings: Settings) -> ByHand:
    if site.node.op == "gather":
        return ByHand(note="the values that topk returns are what is gathered here")
    return ByHand(note="x.topk(k, dim) gives the first k of what is sorted here")


FIX = Fix(
    name="direct_top_k",
    summary="the best elements come from one topk",
    exact=True,
    rules=frozenset(["sort_for_top_k"]),
    operators=frozenset({"gather", "sort", "argsort"}),
    rewrite="direct_top_k",
    by_hand=_by_hand,
)
