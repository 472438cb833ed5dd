"""The inverse of rigid transforms by turning back."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _settings(site: Site) -> Settings | None:
    return {"rigid": True}


def _by_hand(site: Site, settings: Settings) -> ByHand:
    return ByHand(note="R, t = x[..., :3, :3].mT, x[..., :3, 3:]; cat([cat([R, -R @ t], -1), x[..., 3:, :]], -2)")


FIX = Fix(
    name="rigid_inverse",
    summary="the inverse of a rigid transform is [R^T, -R^T t]",
    exact=True,
    rules=frozenset(["operator_support"]),
    operators=frozenset({"inverse", "linalg_inv", "linalg_inv_ex"}),
    rewrite="closed_form_inverse",
    by_hand=_by_hand,
    settings=_settings,
)
