"""A convolution over volumes becomes one over images."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _by_hand(site: Site, settings: Settings) -> ByHand:
    kernel = site.shape(1)[2:]
    if kernel[1:] == (1, 1):
        return ByHand(note=f"nn.Conv2d with a kernel of ({kernel[0]}, 1) on x.flatten(3), and unflatten its last axis")
    return ByHand(note=f"nn.Conv2d on the {kernel[0]} depth slices put into the channels, depth put into the batch")


FIX = Fix(
    name="conv3d_as_conv2d",
    summary="a convolution over volumes becomes one over images",
    exact=True,
    rules=frozenset(["operator_support", "shape_limits"]),
    operators=frozenset({"conv3d"}),
    rewrite="conv3d_as_conv2d",
    by_hand=_by_hand,
)
