"""What a search has found. Light to import: reports are written where neither torch nor optuna is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bitwright.nas import pareto
from bitwright.nas.result import Outcome, Result


@dataclass(frozen=True, kw_only=True)
class Told:
    """A trial of the study: its number, what became of its candidate, and whether that was known before."""

    number: int
    result: Result
    repeated: bool


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """A finished search.

    Attributes:
        trials: everything that was told, in order.
        objectives: their names.
        maximize: the direction of each.
        recovered: trials that a killed driver had left running.
    """

    trials: tuple[Told, ...]
    objectives: tuple[str, ...]
    maximize: tuple[bool, ...]
    recovered: int = 0

    @property
    def results(self) -> tuple[Result, ...]:
        """One for each candidate."""
        return tuple(each.result for each in self.trials if not each.repeated)

    @property
    def scored(self) -> tuple[Result, ...]:
        """Those that have figures for every objective."""
        return tuple(each for each in self.results if each.outcome is Outcome.SCORED)

    @property
    def front(self) -> tuple[Result, ...]:
        """Those that no other beats in every objective, the best in the first one first."""
        scored = self.scored
        front = [scored[index] for index in pareto.non_dominated([self.losses(each) for each in scored])]
        return tuple(sorted(front, key=self.losses))

    def losses(self, result: Result) -> tuple[float, ...]:
        """A scored result's objectives, less is better."""
        return pareto.losses([result.figures[name] for name in self.objectives], self.maximize)


def why_infeasible(results: Iterable[Result]) -> list[tuple[str, int, str]]:
    """Each constraint with the number of candidates that it refuses and an example, the deadliest first."""
    examples: dict[str, str] = {}
    deaths: Counter[str] = Counter()
    for each in results:
        for violation in each.violations:
            deaths[violation.constraint] += 1
            examples.setdefault(violation.constraint, violation.reason)
    return [(name, count, examples[name]) for name, count in deaths.most_common()]


def nothing_feasible(results: Sequence[Result], target: str) -> str:
    """The message for a search in which nothing got a score."""
    refused = [f"  {name} refuses {count}, for example: {example}" for name, count, example in why_infeasible(results)]
    failed = [each for each in results if each.outcome is Outcome.FAILED]
    if failed:
        refused.append(f"  {len(failed)} failed, for example: {failed[0].reason}")
    if (nearest := nearest_to_feasible(results)) is not None:
        choices = ", ".join(f"{name} {value}" for name, value in nearest.values.items())
        reasons = "; ".join(each.reason for each in nearest.violations)
        refused.append(f"  nearest to feasible is {choices}: {reasons}")
    return "\n".join([f"search: none of {len(results)} candidates is feasible on target {target!r}", *refused])


def nearest_to_feasible(results: Iterable[Result]) -> Result | None:
    """The infeasible candidate that breaks least: fewest constraints, and those by least."""
    infeasible = (each for each in results if each.violations)
    return min(infeasible, key=lambda r: (len(r.violations), sum(v.amount for v in r.violations)), default=None)
