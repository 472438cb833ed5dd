"""Activations by their definitions, in operators that more accelerators have."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site

# The form of quant.passes.spell_activation, and how it is written.
_FORMS = {
    "hardswish": ("relu6", "{x} * F.relu6({x} + 3) / 6"),
    "hardsigmoid": ("relu6", "F.relu6({x} + 3) / 6"),
    "silu": ("sigmoid", "{x} * torch.sigmoid({x})"),
    "mish": ("tanh", "{x} * torch.tanh(F.softplus({x}))"),
}


def _variants(site: Site) -> tuple[Settings, ...]:
    return ({"form": _FORMS[site.node.op][0]},)


def _by_hand(site: Site, settings: Settings) -> ByHand:
    return ByHand(expression=_FORMS[site.node.op][1])


FIX = Fix(
    name="spell_activation",
    summary="an activation is written by its definition",
    exact=True,
    rules=frozenset(["operator_support", "unfused_activation", "dtype"]),
    operators=frozenset(_FORMS),
    rewrite="spell_activation",
    by_hand=_by_hand,
    variants=_variants,
)
