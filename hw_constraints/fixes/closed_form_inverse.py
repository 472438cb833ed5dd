"""The inverse of small matrices in closed form."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site

_NOTES = {
    True: "R, t = x[..., :3, :3].mT, x[..., :3, 3:]; cat([cat([R, -R @ t], -1), x[..., 3:, :]], -2)",
    False: "the inverse in closed form: adjugate / determinant, elementwise",
}


def _variants(site: Site) -> tuple[Settings, ...]:
    """First as if it were rigid, which is a handful of operators: whether it is, parity on recorded inputs tells."""
    return {"rigid": True}, {"rigid": False}


def _by_hand(site: Site, settings: Settings) -> ByHand:
    return ByHand(note=_NOTES[settings["rigid"]])


FIX = Fix(
    name="closed_form_inverse",
    summary="an inverse is [R^T, -R^T t] of a rigid transform, adjugate / determinant of another matrix up to 4x4",
    exact=True,
    rules=frozenset(["operator_support"]),
    operators=frozenset({"inverse", "linalg_inv", "linalg_inv_ex"}),
    rewrite="closed_form_inverse",
    by_hand=_by_hand,
    variants=_variants,
)
