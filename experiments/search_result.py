"""What a search finds, as it stands in `record.json` under `stages.search.result`."""

from __future__ import annotations

from bitwright.experiments.record import Part
from bitwright.nas.result import Result
from bitwright.nas.review_importance import Importance, importance_of_choices
from bitwright.nas.review_limits import LimitCost
from bitwright.nas.search_outcome import SearchOutcome, Told


class SearchTrial(Part):
    """A trial of the study: what became of its candidate, and whether that was known before."""

    number: int
    repeated: bool
    result: Result


class Finalist(Part):
    """A candidate of the front as a recipe.

    Attributes:
        key: the candidate's hash.
        recipes: files, seen from the run's folder, one for each target; none when they could not be written.
        problem: what keeps a recipe from making the network that was scored; empty when it makes that one.
        low: the worst accuracy that is still the same within the noise of the choice of samples; None where that is
            not known.
    """

    key: str
    recipes: tuple[str, ...] = ()
    problem: str = ""
    low: float | None = None


class Limit(Part):
    """What a constraint costs; where no candidate that it alone refused was scored, the recipe that scores one.

    Attributes:
        cost: see `LimitCost`.
        recipe: of the candidate `cost.key`, seen from the run's folder; empty where the cost is known.
        problem: why there is no such recipe.
    """

    cost: LimitCost
    recipe: str = ""
    problem: str = ""


class Ranks(Part):
    """How far searched scores order the front as those from scratch do: Kendall's tau with its 95 % interval."""

    tau: float
    low: float
    high: float
    n: int


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
        finalists: the front as recipes.
        recipes: what these do, in words.
        ranks: of the front's scores with inherited weights against those from scratch; None where there are too few.
        limits: what each constraint costs.
        importance: what each objective hangs on.
    """

    objectives: tuple[str, ...]
    maximize: tuple[bool, ...]
    trials: tuple[SearchTrial, ...]
    metric: str
    unit: str
    device: str = ""
    recovered: int = 0
    finalists: tuple[Finalist, ...] = ()
    recipes: str = ""
    ranks: Ranks | None = None
    limits: tuple[Limit, ...] = ()
    importance: tuple[Importance, ...] = ()

    @classmethod
    def of(
        cls,
        outcome: SearchOutcome,
        *,
        metric: str,
        unit: str,
        device: str = "",
        finalists: tuple[Finalist, ...] = (),
        recipes: str = "",
        ranks: Ranks | None = None,
        limits: tuple[Limit, ...] = (),
    ) -> SearchResult:
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
            finalists=finalists,
            recipes=recipes,
            ranks=ranks,
            limits=limits,
            importance=tuple(importance_of_choices(outcome, name) for name in outcome.objectives),
        )

    @property
    def outcome(self) -> SearchOutcome:
        """As the search gave it."""
        trials = (Told(number=each.number, repeated=each.repeated, result=each.result) for each in self.trials)
        return SearchOutcome(
            trials=tuple(trials), objectives=self.objectives, maximize=self.maximize, recovered=self.recovered
        )
