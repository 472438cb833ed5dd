"""Attention as products and a softmax."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _by_hand(site: Site, settings: Settings) -> ByHand:
    return ByHand(note="softmax(q @ k.transpose(-2, -1) / sqrt(d) + mask) @ v, written out")


FIX = Fix(
    name="write_out_attention",
    summary="attention is written as products and a softmax",
    exact=True,
    rules=frozenset(["operator_support"]),
    operators=frozenset({"scaled_dot_product_attention"}),
    rewrite="write_out_attention",
    by_hand=_by_hand,
)
