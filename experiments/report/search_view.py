"""The search on the report's page: the front as a drawing, its candidates, and what refused the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from bitwright.experiments.figure_text import format_value
from bitwright.experiments.record import Figure
from bitwright.experiments.report.svg import Point, Scale, Svg
from bitwright.experiments.search_result import SearchResult
from bitwright.nas.figures import FIGURES
from bitwright.nas.result import Outcome, Result
from bitwright.nas.search_outcome import why_infeasible

_LABELS = {
    "latency_ms": "latency",
    "predicted_ms": "predicted latency",
    "macs": "MACs",
    "weight_bytes": "weights",
    "activation_bytes": "activations",
}


@dataclass(frozen=True)
class Candidate:
    """A candidate with its figures, in the order of the search's objectives first."""

    result: Result
    figures: dict[str, Figure]


@dataclass(frozen=True, kw_only=True)
class SearchView:
    """What the page shows of a search.

    Attributes:
        chart: the front; None for a single objective.
        front: candidates that no other beats, the best in the first objective first.
        refused: (constraint, number of candidates, example), the deadliest first.
        infeasible: every refused candidate.
        failed: candidates that could not be evaluated.
        tried: different candidates.
        best: the first of the front, in one line.
        wasted_seconds: training time that went into infeasible candidates.
    """

    search: SearchResult
    chart: Markup | None
    front: tuple[Candidate, ...]
    refused: tuple[tuple[str, int, str], ...]
    infeasible: tuple[Result, ...]
    failed: tuple[Result, ...]
    tried: int
    best: str
    wasted_seconds: float

    @classmethod
    def of(cls, search: SearchResult) -> SearchView:
        """Draws it."""
        outcome = search.outcome
        infeasible = [each for each in outcome.results if each.outcome is Outcome.INFEASIBLE]
        return cls(
            search=search,
            chart=front_chart(search) if len(search.objectives) > 1 and outcome.scored else None,
            front=tuple(Candidate(each, figures_of(search, each)) for each in outcome.front),
            refused=tuple(why_infeasible(outcome.results)),
            infeasible=tuple(infeasible),
            failed=tuple(each for each in outcome.results if each.outcome is Outcome.FAILED),
            tried=len(outcome.results),
            best=describe(search, outcome.front[0]) if outcome.front else "",
            wasted_seconds=sum(each.trained_seconds for each in infeasible),
        )


def figures_of(search: SearchResult, result: Result) -> dict[str, Figure]:
    """A candidate's figures with unit and origin; bounds become the interval of their figure."""
    names = [*search.objectives, *(name for name in FIGURES if name not in search.objectives)]
    return {name: _figure(search, result, name) for name in names if name in result.figures}


def _figure(search: SearchResult, result: Result, name: str) -> Figure:
    origin: Literal["measured", "modelled"] = "measured" if FIGURES[name].origin == "measured" else "modelled"
    sources = {
        "accuracy": search.metric,
        "latency_ms": f"{search.device}, relative to the study's reference",
        "predicted_ms": "from a table of measured kernels, 90 % interval",
    }
    return Figure(
        value=result.figures[name],
        unit=search.unit if name == "accuracy" else FIGURES[name].unit,
        origin=origin,
        low=result.figures.get(f"{name}_low"),
        high=result.figures.get(f"{name}_high"),
        source=sources.get(name, "counted in the captured graph, from its shapes"),
    )


def label(search: SearchResult, name: str) -> str:
    """What a figure is called on an axis and in a table's head."""
    return search.metric if name == "accuracy" else _LABELS.get(name, name)


def describe(search: SearchResult, result: Result) -> str:
    """A candidate in one line: choices, then figures or the reason it has none."""
    choices = ", ".join(f"{name} {value}" for name, value in result.values.items())
    figures = figures_of(search, result)
    # Work says what it is by its unit.
    found = ", ".join(
        f"{'' if name == 'macs' else label(search, name)} {format_value(each.value, each.unit)}".lstrip()
        for name, each in figures.items()
    )
    reasons = "; ".join(each.reason for each in result.violations) or result.reason
    return "; ".join(part for part in (choices, found, reasons) if part)


def front_chart(search: SearchResult) -> Markup:
    """The first objective over the second: every scored candidate, the front as a line, the infeasible below."""
    outcome = search.outcome
    vertical, horizontal = search.objectives[:2]
    scored, front = outcome.scored, sorted(outcome.front, key=lambda each: each.figures[horizontal])
    refused = [each for each in outcome.results if each.outcome is Outcome.INFEASIBLE]
    drawing = Svg(
        1000,
        400,
        name="front",
        title=f"Search: {label(search, vertical)} over {label(search, horizontal)}",
        description=f"{len(scored)} scored candidates, {len(front)} on the front, {len(refused)} infeasible; "
        f"best: {describe(search, outcome.front[0])}",
    )
    along = _scale([each.figures[horizontal] for each in scored], 60, 980)
    up = _scale([each.figures[vertical] for each in scored], 300, 30)
    units = {name: search.unit if name == "accuracy" else FIGURES[name].unit for name in (vertical, horizontal)}
    drawing.axis_left(up, along.start, f"{label(search, vertical)}, {units[vertical]}", right=along.end)
    drawing.axis_below(along, up.start, f"{label(search, horizontal)}, {units[horizontal]}", top=up.end)

    def place(each: Result) -> Point:
        return along(each.figures[horizontal]), up(each.figures[vertical])

    if len(front) > 1:
        drawing.polyline([place(each) for each in front], "front-line")
    for each in sorted(scored, key=lambda each: each in front):
        on_front = each in front
        hint = f"{'On the front: ' if on_front else ''}{describe(search, each)}"
        drawing.circle(place(each), 6.5 if on_front else 4.5, "front" if on_front else "scored", hint=hint)
    _infeasible_row(drawing, search, refused, along)
    return drawing.markup()


def _scale(values: Sequence[float], start: float, end: float) -> Scale:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - margin, high + margin, start, end)


def _infeasible_row(drawing: Svg, search: SearchResult, refused: Sequence[Result], along: Scale) -> None:
    """Refused candidates have no score, so they stand in a row of their own, in the order they were tried."""
    y = 372.0
    drawing.circle((along.start + 4, y - 22), 6.5, "front")
    drawing.text((along.start + 16, y - 18), "on the front", "tick")
    drawing.circle((along.start + 110, y - 22), 4.5, "scored")
    drawing.text((along.start + 120, y - 18), "scored", "tick")
    drawing.cross((along.start + 182, y - 22), 4, "refused")
    drawing.text((along.start + 192, y - 18), f"infeasible ({len(refused)})", "tick")
    step = min(16.0, (along.end - along.start) / max(1, len(refused)))
    for index, each in enumerate(refused):
        drawing.cross((along.start + 4 + index * step, y + 4), 4, "refused", hint=describe(search, each))
