"""The lowered network on the report's page."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bitwright.experiments.report.svg import Scale, Svg
from bitwright.experiments.results import LoweredLayer


def lower_chart(layers: Sequence[LoweredLayer]) -> Markup:
    """Modelled time of each operation, in the order in which it runs; hatched where it waits for a memory."""
    longest = max(layers, key=lambda layer: layer.us or 0.0)
    drawing = Svg(
        1000,
        260,
        name="lowered",
        title="Modelled time of each operation, in the order in which it runs",
        description=f"{len(layers)} operations; the longest is {longest.name} with {longest.us or 0.0:.2f} µs",
    )
    up = Scale(0.0, (longest.us or 1.0) * 1.05, 222, 34)
    along = Scale(0, len(layers), 52, 990)
    drawing.axis_left(up, along.start, "µs, modelled; hatched: waits for a memory", right=along.end)
    width = (along.end - along.start) / len(layers)
    for index, layer in enumerate(layers):
        if layer.us is None:
            continue
        kind = "state int8" if layer.bound_by == "compute" else "state conversions"
        hint = f"{layer.module_path or layer.name}: {layer.us:.2f} µs on {layer.engine}, bound by {layer.bound_by}"
        corner = (along(index) + 0.1 * width, up(layer.us))
        drawing.rect(corner, 0.8 * width, up.start - up(layer.us), kind, hint=hint)
    drawing.text((along.end, 246), "operations, first to last", "label", anchor="end")
    return drawing.markup()
