"""A large pool becomes a cascade of small ones."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site
from bitwright.hw_constraints.node_properties import properties

# What pyramids of pools are written with: two or three 5 x 5 reach 9 and 13 (Jocher, YOLOv5 SPPF).
_USUAL = 5


def _settings(site: Site) -> Settings | None:
    """The largest window that the target's own constraints accept, at most the usual one where they say nothing."""
    constraints = [each for each in site.target.constraints_on(site.node.op) if "kernel_h" in each.require.names]
    known = properties(site.graph, site.node)
    if site.finding.rule == "large_pool" or not constraints:
        return {"largest": _USUAL}
    for side in range(int(known["kernel_h"] or 1) - 1, 1, -1):
        tried = {**known, "kernel_h": side, "kernel_w": side, "stride_h": side, "stride_w": side}
        if all(each.require.holds(tried) is not False for each in constraints):
            return {"largest": side}
    return None


def _by_hand(site: Site, settings: Settings) -> ByHand:
    side = settings["largest"]
    return ByHand(note=f"several pools of at most {side} x {side} in a row give the same as this one")


FIX = Fix(
    name="split_pool",
    summary="a large pool becomes a cascade of small ones",
    exact=True,
    rules=frozenset(["large_pool", "shape_limits"]),
    operators=frozenset({"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"}),
    rewrite="split_pool",
    by_hand=_by_hand,
    settings=_settings,
)
