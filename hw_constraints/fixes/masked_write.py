"""An assignment through a boolean mask becomes a choice between two tensors."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _by_hand(site: Site, settings: Settings) -> ByHand:
    rank = len(site.graph.tensors[site.node.tensors[1]].shape)
    more = len(site.shape()) - rank
    mask = "{index}" + (f"[(..., *[None] * {more})]" if more > 1 else "[..., None]" if more else "")
    return ByHand(expression=f"{{x}} = torch.where({mask}, {{value}}, {{x}})")


FIX = Fix(
    name="masked_write",
    summary="an assignment through a boolean mask becomes torch.where",
    exact=True,
    rules=frozenset(["scatter_write", "dynamic_shape", "operator_support"]),
    operators=frozenset({"index", "index_put"}),
    rewrite="masked_write",
    by_hand=_by_hand,
)
