"""Drawings of a search: the front, how it grew, all candidates through all choices, what objectives hang on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from markupsafe import Markup

from bitwright.experiments.report.svg import Point, Scale, Svg
from bitwright.experiments.search_result import SearchResult
from bitwright.experiments.search_text import describe, label, unit
from bitwright.nas.result import Outcome, Result
from bitwright.nas.review import hypervolume_by_trial
from bitwright.nas.review_importance import Importance, leading_choices, varied
from bitwright.nas.review_pictures import parallel_columns
from bitwright.nas.search_outcome import SearchOutcome

_CROSSES = 60  # refused candidates that stand one by one; more are counted in as many bars
_LINES = 400  # of parallel coordinates: more are a solid block
_BARS = 12  # of importance: the rest is in the record


def front_chart(search: SearchResult, outcome: SearchOutcome) -> Markup:
    """The first objective over the second: every scored candidate, the front as a line, the infeasible below."""
    vertical, horizontal = search.objectives[:2]
    best_first = outcome.front
    scored, front = outcome.scored, sorted(best_first, key=lambda each: each.figures[horizontal])
    refused = [each for each in outcome.results if each.outcome is Outcome.INFEASIBLE]
    drawing = Svg(
        1000,
        400,
        name="front",
        title=f"Search: {label(search, vertical)} over {label(search, horizontal)}",
        description=f"{len(scored)} scored candidates, {len(front)} on the front, {len(refused)} infeasible; "
        f"best: {describe(search, best_first[0])}",
    )
    along = _scale([each.figures[horizontal] for each in scored], 60, 980)
    up = _scale([each.figures[vertical] for each in scored], 300, 30)
    drawing.axis_left(up, along.start, _measured(search, vertical), right=along.end)
    drawing.axis_below(along, up.start, _measured(search, horizontal), top=up.end)

    def place(each: Result) -> Point:
        return along(each.figures[horizontal]), up(each.figures[vertical])

    drawing.polyline(_steps([place(each) for each in front]), "front-line")
    keys = {each.key for each in front}
    for each in sorted(scored, key=lambda each: each.key in keys):
        on_front = each.key in keys
        hint = f"{'On the front: ' if on_front else ''}{describe(search, each)}"
        drawing.circle(place(each), 6.5 if on_front else 4.5, "front" if on_front else "scored", hint=hint)
    _infeasible_row(drawing, search, refused, along)
    return drawing.markup()


def _measured(search: SearchResult, name: str) -> str:
    """What an axis shows; MACs are counted, and need no unit beside their name."""
    return label(search, name) if unit(search, name) == "MAC" else f"{label(search, name)}, {unit(search, name)}"


def _steps(points: Sequence[Point]) -> list[Point]:
    """What can be had for so much; nothing is known between two candidates."""
    corners = [(x, y) for (_, y), (x, _) in itertools.pairwise(points)]
    return [points[0], *(each for pair in zip(corners, points[1:], strict=True) for each in pair)]


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
    if len(refused) <= _CROSSES:
        for index, each in enumerate(refused):
            drawing.cross((along.start + 4 + index * 15.0, y + 4), 4, "refused", hint=describe(search, each))
        return
    drawing.text(
        (along.end, y - 18),
        f"each stands for about {len(refused) / _CROSSES:.0f}, in the order in which they were tried →",
        "tick",
        anchor="end",
    )
    bars = [refused[len(refused) * i // _CROSSES : len(refused) * (i + 1) // _CROSSES] for i in range(_CROSSES)]
    for index, some in enumerate(bars):
        reasons = dict.fromkeys(violation.constraint for each in some for violation in each.violations)
        hint = f"{len(some)} refused by {', '.join(reasons)}; the first: {describe(search, some[0])}"
        drawing.cross((along.start + 4 + index * 15.0, y + 4), 4, "refused", hint=hint)


def growth_chart(outcome: SearchOutcome) -> Markup:
    """After each trial, the share that the front covers of the box between the best and the worst scores."""
    volumes = hypervolume_by_trial(outcome)
    drawing = Svg(
        1000,
        190,
        name="growth",
        title="Share of the space between worst and best scores that the front covers, by trial",
        description=f"from {volumes[0]:.3f} after the first of {len(volumes)} trials to {volumes[-1]:.3f}",
    )
    along, up = Scale(1, max(2, len(volumes)), 60, 980), Scale(0, max(volumes) * 1.08 or 1.0, 140, 26)
    drawing.axis_left(up, along.start, "hypervolume, share of the box of all scores", right=along.end, count=4)
    drawing.axis_below(along, up.start, "trial", top=up.end)
    steps: list[Point] = [(along(1), up(volumes[0]))]
    for number, (before, after) in enumerate(itertools.pairwise(volumes), start=2):
        if after != before:
            steps += [(along(number), up(before)), (along(number), up(after))]
            hint = f"trial {number}: {before:.3f} → {after:.3f}"
            drawing.circle((along(number), up(after)), 3.5, "front", hint=hint)
    drawing.polyline([*steps, (along(len(volumes)), up(volumes[-1]))], "front-line")
    return drawing.markup()


def parallel_chart(search: SearchResult, outcome: SearchOutcome) -> Markup:
    """A line for each scored candidate through its choices and objectives; those on the front stand out."""
    choices = leading_choices(outcome, search.importance)
    scored, columns = outcome.scored, parallel_columns(outcome, choices)
    front = {each.key for each in outcome.front}
    others = [index for index, each in enumerate(scored) if each.key not in front]
    step = max(1, -(-len(others) // _LINES))
    ahead = [index for index, each in enumerate(scored) if each.key in front]
    drawing = Svg(
        1000,
        320,
        name="parallel",
        title="Choices and objectives of the scored candidates",
        description=f"{len(columns)} axes; {len(ahead)} candidates on the front, {len(others[::step])} others",
    )
    every = len(varied(scored))
    shown = f"{len(choices)} of {every} choices, those that the objectives hang on most" if len(choices) < every else ""
    thinned = f"{len(others[::step])} of {len(others)} that are not on the front" if step > 1 else ""
    drawing.text((920, 316), "; ".join(filter(None, (shown, thinned))), "tick", anchor="end")
    along, up = Scale(0, max(1, len(columns) - 1), 40, 920), Scale(0, 1, 262, 20)
    for kind, indices in (("other-line", others[::step]), ("front-line", ahead)):
        for index in indices:
            points = [(along(place), up(column.heights[index])) for place, column in enumerate(columns)]
            drawing.polyline(points, kind, hint=describe(search, scored[index]))
    for place, column in enumerate(columns):
        x = along(place)
        drawing.line((x, up(0)), (x, up(1)), "axis")
        for text, height in column.ticks:
            drawing.text((x + 4, up(height) + 4), text, "tick halo")
        name = label(search, column.name) if column.name in search.objectives else column.name
        drawing.text((x, 286), name, "label", anchor="middle")
    return drawing.markup()


def importance_chart(search: SearchResult, found: Importance) -> Markup:
    """The share of an objective's variance that each choice takes part in, with its 95 % interval."""
    shown = found.choices[:_BARS]
    height = 26 * len(shown) + 44
    name = label(search, found.objective)
    drawing = Svg(
        460,
        height,
        name=f"importance-{found.objective}",
        title=f"What {name} hangs on",
        description="; ".join(f"{each.choice} {each.share:.2f}" for each in shown),
    )
    low, high = min(0.0, *(each.low for each in shown)), max(0.1, *(each.high for each in shown))
    across = Scale(low, high, 120, 446)
    for tick in across.ticks(4):
        drawing.line((across(tick), 8), (across(tick), height - 34), "grid")
        drawing.text((across(tick), height - 20), f"{100 * tick:.0f} %", "tick", anchor="middle")
    for row, each in enumerate(shown):
        y = 12 + 26 * row
        hint = f"{each.choice}: {100 * each.share:.1f} % of the variance of {name}, 95 % from "
        hint += f"{100 * each.low:.1f} to {100 * each.high:.1f}"
        start, end = sorted((across(0.0), across(each.share)))
        drawing.text((112, y + 13), each.choice, "tick", anchor="end")
        drawing.rect((start, y), end - start, 18, "own" if found.caution else "quantized", hint=hint)
        drawing.line((across(each.low), y + 9), (across(each.high), y + 9), "whisker")
    drawing.line((across(0.0), 8), (across(0.0), height - 34), "axis")
    drawing.text((446, height - 4), f"share of the variance of {name}", "label", anchor="end")
    return drawing.markup()
