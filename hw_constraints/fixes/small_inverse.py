"""The inverse of small matrices by their adjugates."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _settings(site: Site) -> Settings | None:
    return {"rigid": False}


def _by_hand(site: Site, settings: Settings) -> ByHand:
    return ByHand(note="the inverse in closed form: adjugate / determinant, elementwise")


FIX = Fix(
    name="small_inverse",
    summary="the inverse of matrices up to 4x4 by adjugate and determinant",
    exact=True,
    rules=frozenset(["operator_support"]),
    operators=frozenset({"inverse", "linalg_inv", "linalg_inv_ex"}),
    rewrite="closed_form_inverse",
    by_hand=_by_hand,
    settings=_settings,
)
