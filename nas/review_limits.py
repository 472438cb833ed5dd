"""What a limit of the target or of the recipe costs: the best candidate that it alone refused, beside the best allowed.

Only what is known is compared: a candidate that a late stage refused has been trained and scored; one that the linter
refused has not, and nothing is made up for it. Where no such candidate has a score, the most promising one is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitwright.nas.result import Outcome, Result
from bitwright.nas.search_outcome import SearchOutcome
from bitwright.nas.standing import ACCURACY, INHERITED


@dataclass(frozen=True, kw_only=True)
class LimitCost:
    """What one constraint costs in one figure.

    Attributes:
        constraint: a limit of the recipe or `lint.RULE`.
        alone: how many candidates it refused that nothing else refused.
        known: how many of these have the figure.
        figure: what is compared: the first objective, or the inherited accuracy where no accuracy is known.
        gain: how much better the best of the known ones is than the best that is allowed, in the figure's unit; 0 when
            none is better; None when none is known.
        key: that best one; where none is known, the one that is least beyond the constraint.
    """

    constraint: str
    alone: int
    known: int
    figure: str
    gain: float | None
    key: str


def limit_costs(outcome: SearchOutcome) -> tuple[LimitCost, ...]:
    """For each constraint that alone refused something, what it costs in the first objective; the dearest first."""
    refused: dict[str, list[Result]] = {}
    for each in outcome.results:
        if each.outcome is Outcome.INFEASIBLE and len({violation.constraint for violation in each.violations}) == 1:
            refused.setdefault(each.violations[0].constraint, []).append(each)
    found = [_cost(outcome, name, candidates) for name, candidates in refused.items()]
    return tuple(sorted(found, key=lambda each: (each.gain is None, -(each.gain or 0.0), -each.alone)))


def _cost(outcome: SearchOutcome, constraint: str, refused: Sequence[Result]) -> LimitCost:
    sign = 1 if outcome.maximize[0] else -1
    for figure in _comparable(outcome.objectives[0]):
        known = [each for each in refused if figure in each.figures]
        allowed = [sign * each.figures[figure] for each in outcome.scored if figure in each.figures]
        if known and allowed:
            best = max(known, key=lambda each: sign * each.figures[figure])
            gain = max(0.0, sign * best.figures[figure] - max(allowed))
            return LimitCost(
                constraint=constraint, alone=len(refused), known=len(known), figure=figure, gain=gain, key=best.key
            )
    nearest = min(refused, key=lambda each: each.violations[0].amount)
    return LimitCost(
        constraint=constraint, alone=len(refused), known=0, figure=outcome.objectives[0], gain=None, key=nearest.key
    )


def _comparable(objective: str) -> tuple[str, ...]:
    """Figures that say what a constraint costs in an objective, the truest first; each compares with its own kind."""
    return (ACCURACY, INHERITED) if objective == ACCURACY else (objective,)
