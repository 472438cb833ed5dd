"""An adaptive pool becomes one with a fixed window."""

from __future__ import annotations

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site


def _by_hand(site: Site, settings: Settings) -> ByHand:
    before, after = site.shape(), site.graph.tensors[site.node.outputs[0]].shape
    sizes = [(n, m) for n, m in zip(before[-2:], after[-2:], strict=True) if n and m]
    if all(n % m == 0 for n, m in sizes):
        window = tuple(n // m for n, m in sizes)
        return ByHand(expression=f"F.avg_pool2d({{x}}, {window})")
    return ByHand(
        expression="self.pool_rows @ ({x} @ self.pool_columns)",
        note="two constant matrices as buffers, each row of which averages one bin of the adaptive pool",
    )


FIX = Fix(
    name="fixed_pool",
    summary="an adaptive pool becomes a fixed one, or two products with constant matrices",
    exact=True,
    rules=frozenset(["shape_limits", "operator_support"]),
    operators=frozenset({"adaptive_avg_pool2d"}),
    rewrite="fixed_pool",
    by_hand=_by_hand,
)
