"""Linear layers between two transposes become 1x1 convolutions."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _by_hand(site: Site, settings: Settings) -> ByHand:
    return ByHand(note="nn.Conv2d(c_in, c_out, 1) in place of each nn.Linear, weight[:, :, None, None], no transposes")


FIX = Fix(
    name="linear_as_conv",
    summary="linear layers between two transposes become 1x1 convolutions",
    exact=True,
    rules=frozenset(["layout_round_trip"]),
    operators=frozenset({"permute", "transpose"}),
    rewrite="linear_as_conv",
    by_hand=_by_hand,
)
