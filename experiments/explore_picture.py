"""The picture of an exploration: how long the networks take along each axis, and the layers that take longest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitwright.hw_constraints.explore import Exploration, Sweep

_PANEL_INCHES = (4.2, 3.6)
_LAYERS = 8
_DPI = 120


def draw_exploration(exploration: Exploration, file: Path) -> None:
    """One panel an axis, and one for the longest layers. The file's suffix decides the format.

    Args:
        exploration: what to draw.
        file: such as `explore.png` or `explore.svg`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = len(exploration.sweeps) + 1
    figure = Figure(figsize=(_PANEL_INCHES[0] * panels, _PANEL_INCHES[1]), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel, sweep in zip(axes, exploration.sweeps, strict=False):
        _draw_sweep(panel, sweep)
    _draw_layers(axes[-1], exploration)
    counted = [f"{name} × {weight:g}" if weight != 1 else name for name, weight in exploration.workloads.items()]
    figure.suptitle(f"{', '.join(counted)} on {exploration.target.id} (modelled)", fontsize=10)
    figure.savefig(file, dpi=_DPI)


def _draw_sweep(panel: Any, sweep: Sweep) -> None:
    """Every setting takes the same width, so that texts do not run into each other."""
    places = range(len(sweep.points))
    taken = [(place, point) for place, point in zip(places, sweep.points, strict=True) if not point.refused]
    panel.plot([place for place, _ in taken], [point.total_us / 1e3 for _, point in taken], "o-", color="tab:blue")
    own = sweep.points.index(sweep.own)
    panel.plot([own], [sweep.own.total_us / 1e3], "o", color="tab:orange", markersize=9, label="as it is")
    for place, point in zip(places, sweep.points, strict=True):
        if point.refused:
            panel.axvline(place, color="tab:red", linestyle=":", linewidth=1)
    panel.set_xticks(list(places), [point.setting.text for point in sweep.points], rotation=45, ha="right", fontsize=8)
    panel.set_ylim(0, 1.25 * max(point.total_us for point in sweep.points) / 1e3)
    panel.set_title(sweep.axis.name, fontsize=10)
    panel.set_ylabel("ms")
    panel.grid(axis="y", alpha=0.3)
    panel.legend(fontsize=8, frameon=False)


def _draw_layers(panel: Any, exploration: Exploration) -> None:
    layers = exploration.held_back[:_LAYERS][::-1]
    several = len(exploration.workloads) > 1
    names = [f"{each.network} {each.module or each.layer}" if several else each.module or each.layer for each in layers]
    panel.barh(names, [100 * each.share for each in layers], color="tab:gray")
    for place, each in enumerate(layers):
        panel.text(0, place, f" {each.bound_by}", va="center", fontsize=7, color="white")
    panel.tick_params(labelsize=8)
    panel.set_title("longest layers, % of the time", fontsize=10)
