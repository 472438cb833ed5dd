"""The picture of a mix of formats: the front of cost and SQNR, and how much noise each layer would bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitwright.experiments.mixed_result import MixedResult
from bitwright.quant.sqnr import EXACT_DB

_DPI = 120
_PANEL_INCHES = (6.0, 4.2)
_LAYERS = 40  # bars that can still be read
_FLOAT, _CODED, _CHOSEN = "tab:gray", "tab:blue", "tab:orange"


def draw_mixed(result: MixedResult, file: Path) -> None:
    """One panel for the front where there is one, one for the layers. The file's suffix decides the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = 2 if result.front else 1
    figure = Figure(figsize=(_PANEL_INCHES[0] * panels, _PANEL_INCHES[1] + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if result.front:
        _draw_front(axes[0], result)
    _draw_layers(axes[-1], result)
    figure.savefig(file, dpi=_DPI)


def _draw_front(panel: Any, result: MixedResult) -> None:
    name, chosen = next(iter(result.costs.items()))
    points = [each for each in result.front if each.sqnr < EXACT_DB]  # all in float is at its line
    panel.step([p.cost for p in points], [p.sqnr for p in points], "o-", where="post", color=_CODED, markersize=4)
    panel.plot([chosen.value], [result.sqnr.value], "o", color=_CHOSEN, markersize=9, label="chosen")
    if name in result.limits:
        panel.axvline(result.limits[name].value, color="tab:red", linestyle=":", linewidth=1, label="limit")
    for text, value in zip(("float", "the scheme's own formats"), result.ends[name], strict=True):
        panel.axvline(value, color=_FLOAT, linestyle="--", linewidth=0.8)
        panel.annotate(text, (value, 0.02), xycoords=("data", "axes fraction"), rotation=90, ha="right", size=7)
    panel.set(xlabel=f"{name}, {chosen.unit} ({chosen.origin})", ylabel="SQNR of the results, dB")
    panel.set_title("what no other mix beats", fontsize=10)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8, frameon=False)


def _draw_layers(panel: Any, result: MixedResult) -> None:
    """The noisiest layers: hatched what is estimated, gray what stays in float."""
    noisy = sorted((each for each in result.groups if each.noise), key=lambda each: -max(each.noise.values()))
    shown = noisy[:_LAYERS]
    for place, each in enumerate(shown):
        name = each.format if each.format in each.noise else max(each.noise, key=each.noise.__getitem__)
        panel.bar(
            place,
            each.noise[name],
            color=_CODED if each.format in each.noise else _FLOAT,
            hatch="" if name in each.measured else "//",
            edgecolor="white",
        )
    panel.set_xticks(range(len(shown)), [each.group for each in shown], rotation=90, fontsize=6)
    panel.set_yscale("log")
    panel.set_ylabel("noise ÷ signal of the results, this layer alone")
    title = "layers: blue quantized, gray in float; hatched estimated"
    panel.set_title(title if len(shown) == len(noisy) else f"the {_LAYERS} noisiest {title}", fontsize=10)
