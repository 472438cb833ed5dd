"""Where candidates ended: how many reached each stage of the objective, how many it ended, and what it took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bitwright.nas.result import Outcome, Result


@dataclass(frozen=True, kw_only=True)
class StageToll:
    """One stage of the objective.

    Attributes:
        stage: its name.
        reached: candidates that it was carried out for.
        ended: how many of these went no further, by what became of them; scored ones have not ended.
        seconds: wall time of all of them together.
    """

    stage: str
    reached: int
    ended: dict[str, int]
    seconds: float


def stage_tolls(results: Iterable[Result]) -> tuple[StageToll, ...]:
    """Each stage in the order in which they ran."""
    reached: dict[str, int] = {}
    seconds: dict[str, float] = {}
    ended: dict[str, dict[str, int]] = {}
    for each in results:
        for stage, took in each.seconds.items():
            reached[stage] = reached.get(stage, 0) + 1
            seconds[stage] = seconds.get(stage, 0.0) + took
        if each.outcome is not Outcome.SCORED and each.stage in each.seconds:
            counts = ended.setdefault(each.stage, {})
            counts[each.outcome.value] = counts.get(each.outcome.value, 0) + 1
    # A stage that fewer reach comes later; among equals the order of the first candidate that had both.
    order = sorted(reached, key=lambda stage: -reached[stage])
    return tuple(
        StageToll(stage=stage, reached=reached[stage], ended=ended.get(stage, {}), seconds=round(seconds[stage], 3))
        for stage in order
    )
