"""A mean over height and width becomes the average pool that it is."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _by_hand(site: Site, settings: Settings) -> ByHand:
    after = site.graph.tensors[site.node.outputs[0]].shape
    return ByHand(expression="F.adaptive_avg_pool2d({x}, 1)" + ("" if len(after) == 4 else ".flatten(1)"))


FIX = Fix(
    name="mean_as_pool",
    summary="a mean over height and width becomes a global average pool",
    exact=True,
    rules=frozenset(["operator_support", "shape_limits"]),
    operators=frozenset({"mean"}),
    rewrite="mean_as_pool",
    by_hand=_by_hand,
)
