"""Pictures of a search for TensorBoard: the front, how it grew, all candidates at once, what objectives hang on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bitwright.nas.figures import FIGURES, short
from bitwright.nas.result import Outcome
from bitwright.nas.review_importance import Importance, leading_choices
from bitwright.nas.search_outcome import SearchOutcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LINES = 400  # of parallel coordinates: more are a solid block
_MOST_BARS = 16  # of importance
_MOMENTS = 8  # of the growing front
_GREY, _FRONT, _INK = "#b9c2cb", "tab:orange", "#17212b"


def figure_label(name: str) -> str:
    """A figure's name with its unit and origin, for axes and tables."""
    kind = FIGURES[name]
    return f"{name} ({kind.unit}, {kind.origin})"


def draw_front(
    outcome: SearchOutcome, *, limits: tuple[tuple[float, float], tuple[float, float]] | None = None
) -> Figure:
    """The first objective over the second one: all scores, the front as a line; later candidates are darker.

    Args:
        outcome: with something scored.
        limits: of the horizontal and the vertical axis, where several pictures are to be compared.
    """
    vertical, horizontal = outcome.objectives[:2]
    scored = outcome.scored
    front = sorted(outcome.front, key=lambda each: each.figures[horizontal])
    figure, axes = _axes(7.0, 4.5)
    points = axes.scatter(
        [each.figures[horizontal] for each in scored],
        [each.figures[vertical] for each in scored],
        c=range(len(scored)),
        cmap="Blues",
        edgecolors="black",
        linewidths=0.5,
        label=f"{len(scored)} scored",
        zorder=2,
    )
    axes.plot(
        [each.figures[horizontal] for each in front],
        [each.figures[vertical] for each in front],
        "o-",
        drawstyle="steps-post",  # what can be had for so much; nothing is known between two candidates
        color=_FRONT,
        markersize=11,
        markerfacecolor="none",
        label=f"{len(front)} on the front",
        zorder=3,
    )
    dead = [each for each in outcome.results if each.outcome is Outcome.INFEASIBLE]
    spared = sum(not each.trained_seconds for each in dead)
    title = f"{len(dead)} infeasible, {spared} of them without any training"
    axes.set(xlabel=figure_label(horizontal), ylabel=figure_label(vertical), title=title)
    if limits is not None:
        axes.set(xlim=limits[0], ylim=limits[1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: short(value, 4))
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.colorbar(points, ax=axes, label="order of evaluation")
    return figure


def growing_front(outcome: SearchOutcome) -> Iterator[tuple[int, Figure]]:
    """The front after one trial in eight, two in eight, …, on the same axes, with the trial's number."""
    limits = tuple(
        _padded([each.figures[name] for each in outcome.scored]) for name in reversed(outcome.objectives[:2])
    )
    count = len(outcome.trials)
    for moment in sorted({max(1, round(count * part / _MOMENTS)) for part in range(1, _MOMENTS + 1)}):
        until = replace(outcome, trials=outcome.trials[:moment])
        if until.scored:
            yield until.trials[-1].number, draw_front(until, limits=(limits[0], limits[1]))


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def draw_parallel(outcome: SearchOutcome, importance: Sequence[Importance] = ()) -> Figure:
    """A line for each scored candidate through its leading choices and objectives; those on the front stand out."""
    scored, front = outcome.scored, {each.key for each in outcome.front}
    columns = parallel_columns(outcome, leading_choices(outcome, importance))
    others = [index for index, each in enumerate(scored) if each.key not in front]
    step = max(1, -(-len(others) // _MOST_LINES))
    figure, axes = _axes(max(7.0, 1.15 * len(columns)), 4.8)
    for place, column in enumerate(columns):
        axes.axvline(place, color=_INK, linewidth=0.8, zorder=3)
        for text, height in column.ticks:
            spot = {"xytext": (4, 0), "textcoords": "offset points", "size": 7, "va": "center", "zorder": 4}
            axes.annotate(
                text, (place, height), **spot, bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none"}
            )
    drawn = ((others[::step], _GREY, 0.8, 1), (set(range(len(scored))) - set(others), _FRONT, 1.8, 2))
    for indices, colour, width, order in drawn:
        for index in indices:
            heights = [column.heights[index] for column in columns]
            axes.plot(range(len(columns)), heights, color=colour, linewidth=width, alpha=0.8, zorder=order)
    axes.set_xticks(range(len(columns)), [column.name for column in columns], fontsize=8)
    few = f", {len(others[::step])} of {len(others)} others" if step > 1 else f", {len(others)} others"
    axes.set(yticks=(), xlim=(-0.2, len(columns) - 0.5), title=f"{len(front)} on the front{few}")
    axes.spines[:].set_visible(False)
    return figure


@dataclass(frozen=True, kw_only=True)
class Column:
    """An axis of parallel coordinates.

    Attributes:
        name: of a choice or an objective.
        heights: where each scored candidate crosses it, 0 to 1.
        ticks: (text, height).
    """

    name: str
    heights: tuple[float, ...]
    ticks: tuple[tuple[str, float], ...]


def parallel_columns(outcome: SearchOutcome, choices: Sequence[str]) -> list[Column]:
    """These choices, then the objectives; more is higher, words are in the alphabet's order."""
    scored = outcome.scored
    columns = []
    for name in choices:
        chosen = [each.values.get(name) for each in scored]
        numeric = all(isinstance(value, int | float) for value in chosen)
        words = sorted(set(chosen), key=(lambda value: value) if numeric else str)
        height = {value: place / max(1, len(words) - 1) for place, value in enumerate(words)}
        ticks = tuple((str(value), height[value]) for value in words)
        columns.append(Column(name=name, heights=tuple(height[value] for value in chosen), ticks=ticks))
    for name in outcome.objectives:
        values = [each.figures[name] for each in scored]
        low, high = min(values), max(values)
        heights = tuple((value - low) / ((high - low) or 1.0) for value in values)
        ticks = ((short(low, 4), 0.0), (short(high, 4), 1.0)) if high > low else ((short(low, 4), 0.0),)
        columns.append(Column(name=name, heights=heights, ticks=ticks))
    return columns


def draw_importance(found: Sequence[Importance]) -> Figure:
    """The share of each objective's variance that each choice takes part in, with 95 % intervals."""
    shown = [each for each in found if each.choices]
    names = [each.choice for each in shown[0].choices[:_MOST_BARS]]
    figure, axes = _axes(7.0, 1.4 + 0.32 * len(names) * len(shown))
    height = 0.8 / len(shown)
    for order, importance in enumerate(shown):
        by_name = {each.choice: each for each in importance.choices}
        for place, name in enumerate(names):
            each, y = by_name[name], place + order * height
            colour = f"C{order}" if not importance.caution else _GREY
            axes.barh(y, max(0.0, each.share), height=0.9 * height, color=colour, label=_legend(importance, place))
            axes.plot([each.low, each.high], [y, y], color=_INK, linewidth=1.2)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(names))], names)
    axes.invert_yaxis()
    axes.axvline(0.0, color=_INK, linewidth=0.8)
    axes.set(xlabel="share of the variance that the choice takes part in; line: 95 % interval")
    axes.legend(fontsize=7, loc="lower right")
    return figure


def _legend(importance: Importance, place: int) -> str | None:
    """One entry for each objective."""
    unsure = ", unreliable" if importance.caution else ""
    explained = f"{max(0.0, importance.explained):.0%} explained{unsure}"
    return None if place else f"{importance.objective} ({explained})"


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    """A figure without pyplot, whose global state is not ours."""
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()
