"""Two forms of a network side by side: how far off each layer is of what is allowed, and a broken layer's values."""

from __future__ import annotations

import math

from markupsafe import Markup

from bitwright.experiments.parity_result import ParityBreak, ParityPair
from bitwright.experiments.report.svg import Scale, Svg

_LEAST, _MOST = 1e-3, 1e3  # of what is allowed; beyond these bars end


def parity_chart(pair: ParityPair, *, name: str) -> Markup:
    """A bar for each layer, in the order of the network, on a logarithmic scale around what is allowed."""
    worst = max(pair.judged, key=lambda each: each.severity)
    broken = sum(each.severity > 1 for each in pair.judged)
    drawing = Svg(
        1000,
        244,
        name=name,
        title=f"Error of each layer of {pair.link}, given the inputs of {pair.made_from}",
        description=f"{len(pair.judged)} layers, {broken} beyond what is allowed; the worst is {worst.tensor} "
        f"at {worst.severity:.3g} of it",
    )
    up = Scale(math.log10(_LEAST), math.log10(_MOST), 204, 44)
    along = Scale(0, len(pair.judged), 62, 944)
    for power in range(round(up.low), round(up.high) + 1):
        drawing.line((along.start, up(power)), (along.end, up(power)), "grid")
        drawing.text((along.start - 6, up(power) + 4), f"{10.0**power:g}", "tick", anchor="end")
    drawing.text((4, 14), "error over what is allowed, logarithmic (less is better)", "label")
    width = (along.end - along.start) / len(pair.judged)
    first = next((index for index, each in enumerate(pair.judged) if each.severity > 1), None)
    for index, each in enumerate(pair.judged):
        top = up(math.log10(max(each.severity, _LEAST)))
        kind = "broken" if each.severity > 1 else "own"
        hint = f"{each.tensor} ({each.op or 'input'}): {each.severity:.3g} of what is allowed; "
        hint += f"with everything before it {each.cumulative_db:.1f} dB"
        drawing.rect((along(index) + width * 0.12, top), max(width * 0.76, 0.8), up.start - top, kind, hint=hint)
    drawing.line((along.start, up(0.0)), (along.end, up(0.0)), "clip")
    drawing.text((along.end + 6, up(0.0) + 4), "allowed", "clip-label")
    if first is not None:
        # Above the bars, which are as red as the mark.
        middle, above = along(first + 0.5), up.end - 4
        arrow = ((middle - 6, above - 10), (middle + 6, above - 10), (middle, above))
        drawing.polyline(arrow, "break", hint=f"the first break: {pair.judged[first].tensor}")
        left = middle > 0.6 * along.end  # the name stands where there is more room
        place = middle - 11 if left else middle + 11
        drawing.text((place, above - 1), pair.judged[first].tensor, "clip-label", anchor="end" if left else "start")
    drawing.line((along.start, up.start), (along.end, up.start), "axis")
    drawing.text((along.start, up.start + 18), "input", "tick")
    drawing.text((along.end, up.start + 18), "output", "tick", anchor="end")
    return drawing.markup()


def values_chart(broken: ParityBreak, *, name: str) -> Markup:
    """What a broken layer gives, drawn downwards, beside what it should give, upwards, in the same bins."""
    drawing = Svg(
        460,
        240,
        name=name,
        title=f"Values of {broken.tensor}: expected above, found below",
        description=f"from {broken.edges[0]:.4g} to {broken.edges[-1]:.4g} in {len(broken.expected_counts)} bins",
    )
    along = Scale(broken.edges[0], broken.edges[-1], 46, 450)
    top = math.log10(1 + max(*broken.expected_counts, *broken.found_counts, 1))
    middle = 108
    for counts, kind, end in ((broken.expected_counts, "float", 22.0), (broken.found_counts, "broken", 194.0)):
        away = Scale(0.0, top, middle, end)
        for power in range(1, math.floor(top) + 1):
            y = away(math.log10(1 + 10**power))
            drawing.line((along.start, y), (along.end, y), "grid")
            drawing.text((along.start - 5, y + 4), f"{10**power:g}", "tick", anchor="end")
        for count, left, right in zip(counts, broken.edges, broken.edges[1:], strict=False):
            y = away(math.log10(1 + count))
            wide = max(0.6, along(right) - along(left) - 0.6)
            hint = f"{count} values from {left:.4g} to {right:.4g}"
            drawing.rect((along(left), min(y, middle)), wide, abs(y - middle), kind, hint=hint)
    drawing.line((along.start, middle), (along.end, middle), "axis")
    drawing.text((along.start, 14), "expected", "label")
    drawing.text((along.start, 208), "found", "label")
    for tick in along.ticks(5):
        drawing.text((along(tick), 222), f"{tick:g}", "tick", anchor="middle")
    drawing.text((along.end, 237), "value; height: count, logarithmic", "tick", anchor="end")
    return drawing.markup()
