"""Parity for TensorBoard: each layer's error beside what is allowed, a broken layer's values, and pictures."""

from __future__ import annotations

import base64
import io
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from bitwright.experiments.parity_result import ParityBreak, ParityPair, ParityResult
from bitwright.experiments.tensorboard_images import CUT, FLOAT, INK, QUANTIZED, Pixels, axes_of, pixels_of

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_IMAGES = 12  # of broken layers
_COLUMNS = 90  # of a title of that size on six inches
_LEAST, _MOST = 1e-3, 1e3  # of what is allowed; beyond these bars end


def write_parity(found: ParityResult, writer: SummaryWriter) -> None:
    """Writes a scalar a layer, a picture a pair, the values of the first broken layers, masks and boxes, and text."""
    writer.add_text("run/parity", "\n".join(["```", found.text, "```"]))
    for number, pair in enumerate(found.pairs, start=1):
        for step, layer in enumerate(pair.judged):
            writer.add_scalar(f"parity_error_over_allowed/{number:02d} {pair.link}", layer.severity, step)
        if pair.judged:
            writer.add_image(f"parity/{number:02d} {pair.link}", pair_image(pair), dataformats="HWC")
    for rank, each in enumerate(found.breaks[:_IMAGES], start=1):
        if each.edges:
            writer.add_image(f"parity_breaks/{rank:02d} {each.tensor}", values_image(each), dataformats="HWC")
    for picture in found.pictures:
        writer.add_image(f"parity_results/{picture.result} {picture.link}", _decoded(picture.png), dataformats="HWC")


def pair_image(pair: ParityPair) -> Pixels:
    """A bar for each layer around what is allowed, the first break marked."""
    figure, axes = axes_of(max(7.0, 0.22 * len(pair.judged)), 4.6)
    heights = [min(max(each.severity, _LEAST), _MOST) for each in pair.judged]
    places = np.arange(len(heights))
    broken = np.array([each.severity > 1 for each in pair.judged])
    bars = axes.bar(places, np.array(heights) - _LEAST, bottom=_LEAST, color=QUANTIZED, alpha=0.6)
    for bar in np.array(bars.patches)[broken]:
        bar.set(facecolor=CUT, alpha=1.0)
    axes.axhline(1.0, color=CUT, linestyle="--", linewidth=1.4)
    if broken.any():  # above the bars, which are as red as the mark
        first = int(broken.argmax())
        side = -1 if first > 0.6 * len(heights) else 1  # the name stands where there is more room
        above = axes.get_xaxis_transform()
        axes.plot(first, 1.03, marker="v", color=CUT, markersize=8, transform=above, clip_on=False)
        axes.annotate(
            pair.judged[first].tensor,
            (first, 1.03),
            xycoords=above,
            xytext=(8 * side, 0),
            textcoords="offset points",
            color=CUT,
            size=8,
            ha="left" if side > 0 else "right",
            va="center",
            annotation_clip=False,
        )
    axes.set_yscale("log")
    axes.set_xticks(places, [each.tensor for each in pair.judged], rotation=90, fontsize=6)
    axes.set(ylim=(_LEAST, _MOST), xlim=(-1, len(heights)), ylabel="error over what is allowed")
    axes.set_title(f"{pair.made_from} → {pair.link}", size=9, pad=18)
    return pixels_of(figure)


def values_image(broken: ParityBreak) -> Pixels:
    """What a layer should give, upwards, and what it gives, downwards, in the same bins."""
    figure, axes = axes_of(6.0, 3.4)
    edges = np.asarray(broken.edges)
    middles, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges) * 0.92
    axes.bar(middles, broken.expected_counts, width, color=FLOAT, label="expected")
    axes.bar(middles, -np.asarray(broken.found_counts), width, color=CUT, label="found")
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter(lambda count, _: f"{abs(count):g}")
    axes.set(xlabel="value", ylabel="count, logarithmic")
    axes.legend(frameon=False, fontsize=8)
    lines = (f"{broken.tensor} in {broken.link}", broken.error)
    figure.suptitle("\n".join(part for line in lines for part in wrap(line, _COLUMNS)), size=9)
    return pixels_of(figure)


def _decoded(png: str) -> Pixels:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))
