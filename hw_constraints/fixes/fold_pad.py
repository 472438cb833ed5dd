"""A pad with zeros becomes padding of the convolution behind it."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _by_hand(site: Site, settings: Settings) -> ByHand:
    left, right, top, bottom = (*site.node.attributes["pad"], 0, 0, 0, 0)[:4]
    padding = max(top, bottom), max(left, right)
    kernel = "" if (left, top) == (right, bottom) else ", its kernel padded with zeros to match"
    return ByHand(expression="{x}", note=f"padding={padding} in the convolution behind it instead{kernel}")


FIX = Fix(
    name="fold_pad",
    summary="a pad with zeros becomes padding of the convolution behind it",
    exact=True,
    rules=frozenset(["padding_not_fused", "operator_support"]),
    operators=frozenset({"pad", "constant_pad_nd"}),
    rewrite="fold_pad",
    by_hand=_by_hand,
)
