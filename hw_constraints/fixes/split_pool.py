"""A large pool becomes a cascade of small ones."""

from __future__ import annotations

from collections.abc import Mapping

from bitwright.hw_constraints.fixes.base import ByHand, Fix, Settings, Site
from bitwright.hw_constraints.node_properties import properties
from bitwright.hw_constraints.predicate import Value

# What pyramids of pools are written with: two or three 5 x 5 reach 9 and 13 (Jocher, YOLOv5 SPPF).
_USUAL = 5
_WINDOW = ("kernel_h", "kernel_w", "stride_h", "stride_w")
_WHOLE = ("height", "width", *_WINDOW)  # of a pool over a whole image


def _variants(site: Site) -> tuple[Settings, ...]:
    """The largest windows that the target's own constraints accept, at most the usual one where they say nothing."""
    if site.finding.rule == "large_pool":
        return ({"largest": _USUAL},)
    if site.node.op == "adaptive_avg_pool2d":
        return _averages_before(site)
    largest = _largest_window(site, site.node.op, properties(site.graph, site.node))
    return ({"largest": largest},) if largest else ()


def _averages_before(site: Site) -> tuple[Settings, ...]:
    """Small averages, then the pool itself over as many elements as the constraints on it accept; else only those."""
    known = properties(site.graph, site.node)
    largest = _largest_window(site, "avg_pool2d", known)
    if largest is None:
        return ()
    alone: Settings = {"largest": largest}
    if (known["out_height"], known["out_width"]) != (1, 1):
        return (alone,)
    squares = ((side, dict.fromkeys(_WHOLE, side)) for side in range(int(known["height"] or 1) - 1, 1, -1))
    side = next((side for side, square in squares if _accepts(site, site.node.op, {**known, **square})), None)
    return ({"largest": largest, "left": side * side}, alone) if side else (alone,)


def _largest_window(site: Site, op: str, known: Mapping[str, Value]) -> int | None:
    """The longest side of a window that a pool may have on the target; None when it may have none above 1."""
    if not any("kernel_h" in each.require.names for each in site.target.constraints_on(op)):
        return _USUAL
    sides = range(int(known["kernel_h"] or 1) - 1, 1, -1)
    shapes = ((side, dict.fromkeys(_WINDOW, side)) for side in sides)
    return next((side for side, shape in shapes if _accepts(site, op, {**known, **shape})), None)


def _accepts(site: Site, op: str, known: Mapping[str, Value]) -> bool:
    return all(each.require.holds(known) is not False for each in site.target.constraints_on(op))


def _by_hand(site: Site, settings: Settings) -> ByHand:
    side = settings["largest"]
    if settings.get("left"):
        return ByHand(note=f"nn.AvgPool2d({side}) once or more in front of this gives the same")
    return ByHand(note=f"several pools of at most {side} x {side} in a row give the same as this one")


FIX = Fix(
    name="split_pool",
    summary="a large pool becomes a cascade of small ones",
    exact=True,
    rules=frozenset(["large_pool", "shape_limits"]),
    operators=frozenset({"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"}),
    rewrite="split_pool",
    by_hand=_by_hand,
    variants=_variants,
)
