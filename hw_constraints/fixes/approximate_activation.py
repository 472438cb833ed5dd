"""Activations by cheaper functions that lie close to them."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site

# The form of quant.passes.spell_activation, and how it is written.
_FORMS = {
    "gelu": ("sigmoid", "{x} * torch.sigmoid(1.702 * {x})"),
    "silu": ("hardswish", "F.hardswish({x})"),
}


def _variants(site: Site) -> tuple[Settings, ...]:
    return ({"form": _FORMS[site.node.op][0]},)


def _by_hand(site: Site, settings: Settings) -> ByHand:
    return ByHand(expression=_FORMS[site.node.op][1])


FIX = Fix(
    name="approximate_activation",
    summary="an activation becomes a cheaper one that lies close to it",
    exact=False,
    rules=frozenset(["operator_support", "unfused_activation", "dtype"]),
    operators=frozenset(_FORMS),
    rewrite="spell_activation",
    by_hand=_by_hand,
    variants=_variants,
)
