"""The report's drawings, each a function of a stage's results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from bitwright.experiments.figure_text import format_interval, format_value
from bitwright.experiments.record import Figure
from bitwright.experiments.report.svg import Scale, Svg
from bitwright.experiments.results import Epoch, RuntimeProof, SpeedRow
from bitwright.experiments.tensor_result import TensorQuality
from bitwright.quant.sqnr import EXACT_DB

_BAR, _GAP = 22, 6


def latency_chart(speeds: Sequence[SpeedRow]) -> Markup:
    """Two bars a runtime with the interquartile range as a whisker, and their ratio in words."""
    largest = max(_upper(each) for row in speeds for each in (row.float_latency, row.quantized_latency))
    group = 2 * _BAR + _GAP + 34
    height = group * len(speeds) + 40
    drawing = Svg(
        760,
        height,
        name="latency",
        title="Latency per runtime, float and quantized",
        description="; ".join(
            f"{row.runtime}: float {format_value(row.float_latency.value, 'ms')}, quantized "
            f"{format_value(row.quantized_latency.value, 'ms')}, ratio {row.ratio.value:.3f}"
            for row in speeds
        ),
    )
    across = Scale(0.0, largest, 90, 620)
    drawing.axis_below(across, height - 36, "ms, median; whisker: interquartile range", top=8)
    for index, row in enumerate(speeds):
        y = index * group + 20
        drawing.text((4, y - 4), f"{row.runtime}: quantized ÷ float = {_ratio(row.ratio)}", "strong")
        for offset, (name, figure) in enumerate((("float", row.float_latency), ("quantized", row.quantized_latency))):
            top = y + 4 + offset * (_BAR + _GAP)
            drawing.text((across.start - 8, top + 15), name, "label", anchor="end")
            drawing.rect((across.start, top), across(figure.value) - across.start, _BAR, name)
            _whisker(drawing, across, figure, top + _BAR / 2)
            drawing.text((across(_upper(figure)) + 8, top + 15), format_value(figure.value, figure.unit), "value")
    return drawing.markup()


def _ratio(ratio: Figure) -> str:
    return f"{ratio.value:.3f} ({format_interval(ratio)})" if ratio.low is not None else f"{ratio.value:.3f}"


def _upper(figure: Figure) -> float:
    return figure.value + (figure.spread or 0.0) / 2


def _whisker(drawing: Svg, across: Scale, figure: Figure, y: float) -> None:
    if figure.spread is None:
        return
    left, right = across(figure.value - figure.spread / 2), across(_upper(figure))
    drawing.line((left, y), (right, y), "whisker")
    for x in (left, right):
        drawing.line((x, y - 5), (x, y + 5), "whisker")


def state_chart(proof: RuntimeProof) -> Markup:
    """Two bars of 100 %: multiply-accumulates and time, divided by what they ran in."""
    macs = _shares(proof, "mac_share")
    times = _shares(proof, "time_share")
    times["conversions"] = proof.conversion_time.value / 100
    rows = (("MACs", macs), ("time", times))
    drawing = Svg(
        760,
        2 * (_BAR + 30) + 8,
        name=f"states-{proof.runtime}",
        title=f"What ran in low precision, {proof.runtime}",
        description="; ".join(
            f"{label}: " + ", ".join(f"{state} {100 * share:.1f} %" for state, share in shares.items() if share)
            for label, shares in rows
        ),
    )
    across = Scale(0.0, 1.0, 60, 750)
    for index, (label, shares) in enumerate(rows):
        top, left = index * (_BAR + 30) + 22, 0.0
        drawing.text((across.start - 8, top + 15), label, "label", anchor="end")
        legend = " · ".join(f"{state} {100 * share:.1f} %" for state, share in shares.items() if share)
        drawing.text((across.start, top - 6), legend, "value")
        for state, share in shares.items():
            width = across(left + share) - across(left)
            hint = f"{label} in {state}: {100 * share:.1f} %"
            drawing.rect((across(left), top), width, _BAR, f"state {state}", hint=hint)
            if width > 60 and state != "conversions":  # no text on hatching; the line above says it
                drawing.text((across(left) + width / 2, top + 15), state, f"on {state}", anchor="middle")
            left += share
    return drawing.markup()


def _shares(proof: RuntimeProof, quantity: str) -> dict[str, float]:
    totals: dict[str, float] = dict.fromkeys(("int8", "fp8", "float", "folded"), 0.0)
    for layer in proof.layers:
        totals[layer.state] = totals.get(layer.state, 0.0) + getattr(layer, quantity)
    return totals


def sqnr_chart(tensors: Sequence[TensorQuality]) -> Markup:
    """Per activation, in the order of the network: own error as bars, with all before it as a line.

    A second line shows the same in the plainest way, where the recipe asks for more.
    """
    figures = [figure for each in tensors for figure in (each.sqnr, each.own_sqnr, each.before) if figure is not None]
    finite = [figure.value for figure in figures if figure.value < EXACT_DB]
    worst = min(tensors, key=lambda each: each.own_sqnr.value)
    drawing = Svg(
        1000,
        300,
        name="sqnr",
        title="Signal to quantization noise of each activation, in the order of the network",
        description=f"{len(tensors)} activations; lowest own SQNR {worst.own_sqnr.value:.1f} dB at {worst.tensor}",
    )
    up = Scale(min(0.0, *finite), max(finite, default=1.0) * 1.05, 262, 34)
    along = Scale(0, len(tensors), 52, 990)
    drawing.axis_left(up, along.start, "SQNR, dB (more is better)", right=along.end)
    width = (along.end - along.start) / len(tensors)
    for index, each in enumerate(tensors):
        top = up(each.own_sqnr.value)
        kind = "own worst" if each is worst else "own"
        drawing.rect((along(index) + width * 0.12, top), width * 0.76, up.start - top, kind, hint=_hint(each))
    before = [
        (along(index + 0.5), up(each.before.value)) for index, each in enumerate(tensors) if each.before is not None
    ]
    if before:
        drawing.polyline(before, "before")
    middles = [(along(index + 0.5), up(each.sqnr.value)) for index, each in enumerate(tensors)]
    drawing.polyline(middles, "cumulative")
    for place, each in zip(middles, tensors, strict=True):
        drawing.circle(place, 2.6, "cumulative-dot", hint=_hint(each))
    drawing.line((along.start, up.start), (along.end, up.start), "axis")
    drawing.text((along.start, up.start + 18), "input", "tick")
    drawing.text((along.end, up.start + 18), "output", "tick", anchor="end")
    _sqnr_legend(drawing, along.start, up.start + 34, before=bool(before))
    return drawing.markup()


def _hint(tensor: TensorQuality) -> str:
    own, all_before = (format_value(each.value, "dB") for each in (tensor.own_sqnr, tensor.sqnr))
    return f"{tensor.tensor} ({tensor.op or 'input'}, {tensor.format}): own {own}, with all before it {all_before}"


def _sqnr_legend(drawing: Svg, x: float, y: float, *, before: bool) -> None:
    drawing.rect((x, y - 9), 14, 10, "own")
    drawing.text((x + 20, y), "bar: the layer's own error, its inputs in float (outlined: the lowest)", "tick")
    drawing.line((x + 440, y - 4), (x + 464, y - 4), "cumulative")
    drawing.circle((x + 452, y - 4), 2.6, "cumulative-dot")
    drawing.text((x + 472, y), "line: with everything before it quantized", "tick")
    if before:
        drawing.line((x + 716, y - 4), (x + 740, y - 4), "before")
        drawing.text((x + 748, y), "dashed: in the plainest way", "tick")


def histogram_chart(tensor: TensorQuality, *, name: str) -> Markup:
    """Values of one activation in float, on a logarithmic scale, with the two ends of its format."""
    low, high = min(tensor.low, tensor.edges[0]), max(tensor.high, tensor.edges[-1])
    drawing = Svg(
        330,
        190,
        name=name,
        title=f"Values of {tensor.tensor} and where {tensor.format} ends",
        description=f"values from {tensor.edges[0]:.4g} to {tensor.edges[-1]:.4g}; the format represents "
        f"{tensor.low:.4g} to {tensor.high:.4g}; {tensor.clipped.value:.3g} % are clipped",
    )
    margin = 0.04 * (high - low)
    along = Scale(low - margin, high + margin, 40, 322)
    top = math.log10(1 + max(tensor.counts))
    up = Scale(0.0, top, 146, 26)
    for power in range(0, math.floor(top) + 1):
        y = up(math.log10(1 + 10**power))
        drawing.line((along.start, y), (along.end, y), "grid")
        drawing.text((along.start - 5, y + 4), _power_of_ten(power), "tick", anchor="end")
    for count, left, right in zip(tensor.counts, tensor.edges, tensor.edges[1:], strict=False):
        y = up(math.log10(1 + count))
        kind = "cut" if (left + right) / 2 < tensor.low or (left + right) / 2 > tensor.high else "bin"
        hint = f"{count} values from {left:.4g} to {right:.4g}"
        drawing.rect((along(left), y), max(0.6, along(right) - along(left) - 0.6), up.start - y, kind, hint=hint)
    for value, anchor in ((tensor.low, "start"), (tensor.high, "end")):
        drawing.line((along(value), 18), (along(value), up.start), "clip")
        drawing.text((along(value), 12), f"{value:.4g}", "clip-label", anchor=anchor)
    drawing.line((along.start, up.start), (along.end, up.start), "axis")
    for tick in along.ticks(5):
        drawing.text((along(tick), up.start + 15), f"{tick:g}", "tick", anchor="middle")
    drawing.text((along.end, up.start + 32), "value in float; height: count, logarithmic", "tick", anchor="end")
    return drawing.markup()


def _power_of_ten(power: int) -> str:
    return str(10**power) if power < 4 else f"1e{power}"


def curve_chart(
    curves: Mapping[str, Sequence[float]], *, name: str, title: str, unit: str, zero: bool = True
) -> Markup:
    """Values over epochs, one line a curve, each named at its end; `zero`: whether the axis begins there."""
    values = [value for curve in curves.values() for value in curve]
    epochs = max(len(curve) for curve in curves.values())
    drawing = Svg(
        760,
        240,
        name=name,
        title=title,
        description="; ".join(f"{label}: from {curve[0]:.4g} to {curve[-1]:.4g}" for label, curve in curves.items()),
    )
    margin = 0.08 * (max(values) - min(values)) or 1.0
    low = min(0.0, *values) if zero else min(values) - margin
    along, up = Scale(1, max(2, epochs), 60, 600), Scale(low, max(values) + margin, 196, 26)
    drawing.axis_left(up, along.start, unit, right=along.end)
    for epoch in range(1, epochs + 1):
        if epochs <= 12 or epoch % math.ceil(epochs / 12) == 0:
            drawing.text((along(epoch), up.start + 16), str(epoch), "tick", anchor="middle")
    drawing.text((along.end, up.start + 32), "epoch", "label", anchor="end")
    for index, (label, curve) in enumerate(curves.items()):
        points = [(along(epoch), up(value)) for epoch, value in enumerate(curve, start=1)]
        drawing.polyline(points, f"curve curve-{index}")
        for point, value in zip(points, curve, strict=True):
            drawing.circle(point, 3, f"curve-dot-{index}", hint=f"{label}: {value:.4g} {unit}")
    for label, y in spread_apart({label: up(curve[-1]) for label, curve in curves.items()}, least=14.0).items():
        drawing.text((along(len(curves[label])) + 10, y + 4), f"{label} {curves[label][-1]:.3g}", "value")
    return drawing.markup()


def spread_apart(heights: Mapping[str, float], *, least: float) -> dict[str, float]:
    """Moves labels down just as far as they would stand closer than `least` to the one above."""
    placed: dict[str, float] = {}
    lowest = -math.inf
    for label, height in sorted(heights.items(), key=lambda item: item[1]):
        lowest = placed[label] = max(height, lowest + least)
    return placed


def loss_chart(epochs: Sequence[Epoch], *, name: str) -> Markup:
    """Mean training loss over epochs."""
    return curve_chart({"loss": [epoch.loss for epoch in epochs]}, name=name, title="Training loss", unit="mean loss")
