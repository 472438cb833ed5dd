"""A grouped transposed convolution becomes one for each group."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _by_hand(site: Site, settings: Settings) -> ByHand:
    groups = site.node.attributes["groups"]
    return ByHand(
        expression=f"torch.cat([up(part) for up, part in zip(self.ups, {{x}}.chunk({groups}, 1))], 1)",
        note=f"self.ups = nn.ModuleList of {groups} nn.ConvTranspose2d without groups, weight.chunk({groups}) each",
    )


FIX = Fix(
    name="split_deconv",
    summary="a grouped transposed convolution becomes one for each group",
    exact=True,
    rules=frozenset(["shape_limits", "operator_support"]),
    operators=frozenset({"conv_transpose2d"}),
    rewrite="split_deconv",
    by_hand=_by_hand,
)
