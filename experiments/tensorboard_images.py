"""The drawings for TensorBoard: matplotlib figures as pixels, uint8 `[height, width, 3]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bitwright.experiments.figure_text import format_interval
from bitwright.experiments.results import LowerResult, RuntimeProof, SpeedRow
from bitwright.experiments.tensor_result import TensorQuality

Pixels = npt.NDArray[np.uint8]
QUANTIZED, FLOAT, CUT, INK = "#0a6f70", "#8a96a3", "#b3261e", "#17212b"
_LONGEST = 60  # characters of a name in a picture's title
_STATES = {"int8": (QUANTIZED, ""), "fp8": ("#5b55b8", ""), "float": (FLOAT, "//"), "folded": ("#d9dfe5", "")}


def histogram_image(tensor: TensorQuality) -> Pixels:
    """Values of an activation in float; dashed lines where its format ends, hatched what it cuts off."""
    # A run has dozens of these: fixed margins, one outline for all bars and plain numbers take a third of the time.
    figure, axes = axes_of(6.0, 3.4, layout=None)
    figure.subplots_adjust(left=0.13, right=0.97, bottom=0.15, top=0.8)
    edges, counts = np.asarray(tensor.edges), np.asarray(tensor.counts, dtype=float)
    middles = (edges[:-1] + edges[1:]) / 2
    cut = (middles < tensor.low) | (middles > tensor.high)
    axes.stairs(np.where(cut, np.nan, counts), edges, fill=True, color=QUANTIZED)
    axes.stairs(
        np.where(cut, counts, np.nan), edges, fill=True, facecolor="white", edgecolor=CUT, hatch="///", linewidth=1
    )
    for value in (tensor.low, tensor.high):
        axes.axvline(value, color=CUT, linestyle="--", linewidth=1.4)
        axes.annotate(f"{value:.4g}", (value, 1.01), xycoords=("data", "axes fraction"), color=CUT, ha="center", size=8)
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.set(xlabel="value in float", ylabel="count, logarithmic")
    kind = tensor.op or ("input" if tensor.tensor.startswith("$") else "weight")
    name = tensor.tensor if len(tensor.tensor) <= _LONGEST else f"… {tensor.tensor[-_LONGEST:]}"  # its end tells more
    figure.suptitle(
        f"{name} ({kind}, {tensor.format})\nown {tensor.own_sqnr.value:.1f} dB, "
        f"with all before it {tensor.sqnr.value:.1f} dB, {tensor.clipped.value:.2g} % clipped",
        size=9,
    )
    return pixels_of(figure)


def sqnr_image(tensors: Sequence[TensorQuality]) -> Pixels:
    """Own SQNR of each activation as bars, with everything before it quantized as a line."""
    figure, axes = axes_of(max(7.0, 0.22 * len(tensors)), 5.0)
    places = np.arange(len(tensors))
    axes.bar(places, [each.own_sqnr.value for each in tensors], color=QUANTIZED, alpha=0.6, label="own error")
    line = [each.sqnr.value for each in tensors]
    axes.plot(places, line, color=INK, marker="o", markersize=3, linewidth=1.2, label="with everything before it")
    plain = [np.nan if each.before is None else each.before.value for each in tensors]
    if not np.isnan(plain).all():
        axes.plot(places, plain, color=FLOAT, linestyle="--", linewidth=1.2, label="the same, rounded to nearest")
    axes.set_xticks(places, [each.tensor for each in tensors], rotation=90, fontsize=6)
    axes.set(ylabel="SQNR, dB", title="Signal to quantization noise per activation", xlim=(-1, len(tensors)))
    axes.margins(y=0.22)  # room for the legend above the bars
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return pixels_of(figure)


def latency_image(speeds: Sequence[SpeedRow]) -> Pixels:
    """Median latency per runtime with half the interquartile range on both sides, and the paired ratio."""
    figure, axes = axes_of(7.0, 1.2 + 1.0 * len(speeds))
    for index, row in enumerate(speeds):
        for offset, latency, colour in ((-0.2, row.float_latency, FLOAT), (0.2, row.quantized_latency, QUANTIZED)):
            half = (latency.spread or 0.0) / 2
            axes.barh(index + offset, latency.value, height=0.36, color=colour, xerr=half, capsize=3, ecolor=INK)
            name = "float" if offset < 0 else "quantized"
            axes.annotate(
                f" {name} {latency.value:.3g} ms", (latency.value + half, index + offset), va="center", size=8
            )
    labels = [f"{row.runtime}\n× {row.ratio.value:.3f}\n{format_interval(row.ratio)}" for row in speeds]
    axes.set_yticks(range(len(speeds)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set(xlabel="ms, median; whisker: interquartile range", title="Latency, float and quantized")
    return pixels_of(figure)


def lowered_image(lowered: LowerResult) -> Pixels:
    """Modelled time of each operation in the order in which it runs; hatched where it waits for a memory."""
    figure, axes = axes_of(max(7.0, 0.22 * len(lowered.layers)), 5.0)
    times = np.asarray([layer.us or 0.0 for layer in lowered.layers])
    waits = np.asarray([layer.bound_by != "compute" for layer in lowered.layers])
    places = np.arange(len(times))
    for part, label, hatch in ((~waits, "computes", ""), (waits, "waits for a memory", "///")):
        fill = {"facecolor": "white", "edgecolor": QUANTIZED, "hatch": hatch} if hatch else {"color": QUANTIZED}
        axes.bar(places[part], times[part], label=label, **fill)
    axes.set_xticks(places, [layer.module_path or layer.name for layer in lowered.layers], rotation=90, fontsize=6)
    axes.set(ylabel="µs, modelled", title=f"Modelled time of each operation, {lowered.model}", xlim=(-1, len(times)))
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return pixels_of(figure)


def proof_image(proof: RuntimeProof) -> Pixels:
    """What multiply-accumulates and time ran in."""
    figure, axes = axes_of(7.0, 2.0)
    for row, quantity in enumerate(("mac_share", "time_share")):
        left = 0.0
        for state, (colour, hatch) in _STATES.items():
            share = 100 * sum(getattr(layer, quantity) for layer in proof.layers if layer.state == state)
            if share:
                label = f"{state} {share:.1f} %"
                axes.barh(row, share, left=left, color=colour, hatch=hatch, edgecolor="white", height=0.6)
                axes.annotate(label, (left + share / 2, row - 0.42), ha="center", size=8)
            left += share
        if quantity == "time_share" and proof.conversion_time.value:
            share = proof.conversion_time.value
            axes.barh(row, share, left=left, facecolor="white", hatch="////", edgecolor=FLOAT, height=0.6)
            axes.annotate(f"conversions {share:.1f} %", (100, row + 0.5), ha="right", size=8)
    axes.set_yticks((0, 1), ("MACs", "time"))
    axes.set(xlim=(0, 100), ylim=(1.7, -0.7), xlabel="%", title=f"What ran in which precision, {proof.runtime}")
    return pixels_of(figure)


def axes_of(
    width: float, height: float, *, layout: Literal["constrained"] | None = "constrained"
) -> tuple[Figure, Any]:
    """A figure without pyplot, whose global state is not ours."""
    figure = Figure(figsize=(width, height), dpi=110, layout=layout)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", color="#d9dfe5", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def pixels_of(figure: Figure) -> Pixels:
    """What a figure looks like."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
