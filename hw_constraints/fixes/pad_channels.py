"""Channels between two layers are padded with zeros to what the hardware packs."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site

# Four 8-bit products are one instruction of every dot-product unit.
_LANE = 4


def _variants(site: Site) -> tuple[Settings, ...]:
    """The multiple that the target's layouts pack, else what every unit does."""
    channels = site.shape(1)[0] or 0
    name = site.target.numerics.activations[0].format.name
    packs = [layout.channel_multiple.get(name, 1) for layout in site.target.layouts.values()]
    return ({"multiple": _LANE if channels % _LANE else max([_LANE, *packs])},)


def _by_hand(site: Site, settings: Settings) -> ByHand:
    multiple, channels = settings["multiple"], site.shape(1)[0] or 0
    wide = -(-channels // multiple) * multiple
    return ByHand(note=f"{wide} channels instead of {channels}, with zero weights in both layers, or trained anew")


FIX = Fix(
    name="pad_channels",
    summary="channels between two layers are padded with zeros to what the accelerator packs",
    exact=True,
    rules=frozenset(["channel_multiple"]),
    operators=frozenset({"conv1d", "conv2d", "conv3d", "linear"}),
    rewrite="pad_channels",
    by_hand=_by_hand,
    variants=_variants,
)
