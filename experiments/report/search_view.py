"""The search on the report's page: its drawings, the front with its recipes, and what became of the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from bitwright.experiments.record import Figure
from bitwright.experiments.report.search_charts import front_chart, growth_chart, importance_chart, parallel_chart
from bitwright.experiments.search_result import Finalist, SearchResult
from bitwright.experiments.search_text import choices_text, describe, figure_names, figures_of, limit_text, ranks_text
from bitwright.nas.result import Outcome, Result
from bitwright.nas.review_importance import Importance
from bitwright.nas.review_stages import StageToll, stage_tolls
from bitwright.nas.search_outcome import why_infeasible

_CHOICES = 8  # in the headline
_ROWS = 100  # of candidates that are not on the front; the record has all


@dataclass(frozen=True)
class Candidate:
    """A candidate with its figures, in the order of the search's objectives first, and its recipe."""

    result: Result
    figures: dict[str, Figure]
    finalist: Finalist | None


@dataclass(frozen=True, kw_only=True)
class SearchView:
    """What the page shows of a search.

    Attributes:
        charts: the front and its growth, all candidates through all choices; what there is.
        front: candidates that no other beats, the best in the first objective first.
        choices: names of all choices of the front.
        figures: names of all its figures, each with one that has it.
        stages: how far candidates got.
        refused: (constraint, number of candidates, example), the deadliest first.
        limits: what constraints cost, in words.
        importance: what each objective hangs on, with its drawing.
        ranks: how far searched scores order the front as those from scratch do, in words.
        infeasible: refused candidates, as many as are listed.
        infeasible_count: how many there are.
        failed: candidates that could not be evaluated.
        tried: different candidates.
        best: the first of the front, in one line.
        beaten: how many were given up, since they could not reach the front.
        wasted_seconds: training time that went into infeasible candidates.
    """

    search: SearchResult
    charts: tuple[Markup, ...]
    front: tuple[Candidate, ...]
    choices: tuple[str, ...]
    figures: dict[str, Figure]
    stages: tuple[StageToll, ...]
    refused: tuple[tuple[str, int, str], ...]
    limits: tuple[str, ...]
    importance: tuple[tuple[Importance, Markup | None], ...]
    ranks: str
    infeasible: tuple[Result, ...]
    infeasible_count: int
    failed: tuple[Result, ...]
    tried: int
    best: str
    beaten: int
    wasted_seconds: float

    @classmethod
    def of(cls, search: SearchResult) -> SearchView:
        """Draws it."""
        outcome = search.outcome
        infeasible = [each for each in outcome.results if each.outcome is Outcome.INFEASIBLE]
        finalists = {each.key: each for each in search.finalists}
        front = tuple(Candidate(each, figures_of(search, each), finalists.get(each.key)) for each in outcome.front)
        charts: list[Markup] = []
        if outcome.scored and len(search.objectives) > 1:
            charts.append(front_chart(search, outcome))
        if len({outcome.losses(each) for each in outcome.scored}) > 1:
            charts += [growth_chart(outcome), parallel_chart(search, outcome)]
        return cls(
            search=search,
            charts=tuple(charts),
            front=front,
            choices=tuple(dict.fromkeys(name for each in front for name in each.result.values)),
            figures={name: _first(front, name) for name in figure_names(search, outcome.front)},
            stages=stage_tolls(outcome.results),
            refused=tuple(why_infeasible(outcome.results)),
            limits=tuple(limit_text(search, each, Path()) for each in search.limits),
            importance=tuple(
                (each, importance_chart(search, each) if each.choices else None) for each in search.importance
            ),
            ranks=ranks_text(search),
            infeasible=tuple(infeasible[:_ROWS]),
            infeasible_count=len(infeasible),
            failed=tuple(each for each in outcome.results if each.outcome is Outcome.FAILED),
            tried=len(outcome.results),
            best=_brief(search, outcome.front[0]) if outcome.front else "",
            beaten=sum(each.outcome is Outcome.BEATEN for each in outcome.results),
            wasted_seconds=sum(each.trained_seconds for each in infeasible),
        )


def _brief(search: SearchResult, result: Result) -> str:
    """A candidate in one line; where it has many choices the recipe says them."""
    text = describe(search, result)
    if len(result.values) <= _CHOICES:
        return text
    return f"candidate {result.key}; {text.removeprefix(choices_text(result)).removeprefix('; ')}"


def _first(front: tuple[Candidate, ...], name: str) -> Figure:
    """A figure of that name, for its unit and origin."""
    return next(each.figures[name] for each in front if name in each.figures)
