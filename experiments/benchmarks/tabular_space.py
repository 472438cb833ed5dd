"""A search space whose every candidate was scored before: searches of hundreds of trials become look-ups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bitwright.nas.pareto import hypervolume
from bitwright.nas.result import Outcome, Result
from bitwright.nas.sampling.grid import Floats
from bitwright.nas.space import Candidate, SearchSpace

OBJECTIVES = ("accuracy", "predicted_ms")
MAXIMIZE = (True, False)


@dataclass(frozen=True, kw_only=True)
class Table:
    """All candidates of a space with what became of them.

    Attributes:
        name: of the table.
        space: its candidates.
        results: by their keys.
    """

    name: str
    space: SearchSpace
    results: Mapping[str, Result]

    def evaluate(self, candidate: Candidate) -> Result:
        """What an evaluation gives."""
        return self.results[candidate.key]

    def screen(self, candidate: Candidate) -> Result:
        """What is known without training: everything but the accuracy."""
        return self._screened[candidate.key]

    @cached_property
    def _screened(self) -> dict[str, Result]:
        return {
            key: each.model_copy(
                update={"figures": {name: value for name, value in each.figures.items() if name != OBJECTIVES[0]}}
            )
            for key, each in self.results.items()
        }

    @property
    def infeasible(self) -> float:
        """The share of candidates that lint or limits refuse."""
        return float(np.mean([each.outcome is not Outcome.SCORED for each in self.results.values()]))

    def hypervolume(self, results: Iterable[Result]) -> float:
        """What results cover, as a share of what all candidates cover.

        Both objectives are scaled to 0…1 over the feasible candidates; the point of reference is the worst of each.
        """
        losses = self._losses(results)
        return hypervolume(((losses - self._low) / self._spread).tolist(), [1.0, 1.0]) / self._whole

    @cached_property
    def _whole(self) -> float:
        losses = (self._losses(self.results.values()) - self._low) / self._spread
        return hypervolume(losses.tolist(), [1.0, 1.0])

    @cached_property
    def _low(self) -> Floats:
        low: Floats = self._losses(self.results.values()).min(axis=0)
        return low

    @cached_property
    def _spread(self) -> Floats:
        spread: Floats = np.ptp(self._losses(self.results.values()), axis=0)
        return spread

    @staticmethod
    def _losses(results: Iterable[Result]) -> Floats:
        scored = [each.figures for each in results if each.outcome is Outcome.SCORED]
        rows = [[-each[OBJECTIVES[0]], each[OBJECTIVES[1]]] for each in scored]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 2)
