"""What a search finds, as it stands in `record.json` under `stages.search.result`."""

from __future__ import annotations

from bitwright.experiments.record import Part
from bitwright.nas.result import Result
from bitwright.nas.search_outcome import SearchOutcome, Told


class SearchTrial(Part):
    """A trial of the study: what became of its candidate, and whether that was known before."""

    number: int
    repeated: bool
    result: Result


class SearchResult(Part):
    """A search as its study tells it.

    Attributes:
        objectives: names of figures of the candidates, the first on the front's vertical axis.
        maximize: the direction of each.
        trials: in order, infeasible ones included.
        metric: what `accuracy` stands for.
        unit: of that metric.
        device: what latencies were measured on; empty when none were.
        recovered: trials that a killed driver had left running.
    """

    objectives: tuple[str, ...]
    maximize: tuple[bool, ...]
    trials: tuple[SearchTrial, ...]
    metric: str
    unit: str
    device: str = ""
    recovered: int = 0

    @classmethod
    def of(cls, outcome: SearchOutcome, *, metric: str, unit: str, device: str = "") -> SearchResult:
        """What stands in the record."""
        trials = (
            SearchTrial(number=each.number, repeated=each.repeated, result=each.result) for each in outcome.trials
        )
        return cls(
            objectives=outcome.objectives,
            maximize=outcome.maximize,
            trials=tuple(trials),
            metric=metric,
            unit=unit,
            device=device,
            recovered=outcome.recovered,
        )

    @property
    def outcome(self) -> SearchOutcome:
        """As the search gave it."""
        trials = (Told(number=each.number, repeated=each.repeated, result=each.result) for each in self.trials)
        return SearchOutcome(
            trials=tuple(trials), objectives=self.objectives, maximize=self.maximize, recovered=self.recovered
        )
