"""A strided convolution of few channels reads blocks of pixels as channels."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _variants(site: Site) -> tuple[Settings, ...]:
    """Whether the target has the operator that puts blocks of pixels into channels."""
    operators = site.target.operators
    return ({"unshuffle": "pixel_unshuffle" in operators.quantized | operators.shared_qparams},)


def _by_hand(site: Site, settings: Settings) -> ByHand:
    stride = site.node.attributes["stride"][0]
    return ByHand(
        expression=f"{{call}}(F.pixel_unshuffle({{x}}, {stride}))",
        note=f"this convolution with stride 1, {stride * stride} times the channels and its kernel cut into blocks",
    )


FIX = Fix(
    name="space_to_depth_stem",
    summary="a strided stem reads blocks of pixels as channels",
    exact=True,
    rules=frozenset(["shallow_stem"]),
    operators=frozenset({"conv2d"}),
    rewrite="space_to_depth_stem",
    by_hand=_by_hand,
    variants=_variants,
)
