"""Regularised evolution as a sampler of Optuna's kind: a peer of the benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from bitwright.nas import pareto
from bitwright.nas.moves import mutate
from bitwright.nas.sampling.grid import Grid, Places
from bitwright.nas.space import SearchSpace

# Real et al. 2019 (arXiv:1802.01548) keep 100 and draw 25 for 20,000 evaluations; here there are 200.
_POPULATION, _TOURNAMENT = 24, 6


class RegularisedEvolution(optuna.samplers.BaseSampler):
    """Mutates the winner of a tournament among the youngest, and forgets the oldest (Real et al. 2019, section 3).

    With several objectives the winner is one of those that no other of the tournament dominates, drawn at random.

    Args:
        space: what candidates are chosen from.
        seed: of tournaments and mutations.
    """

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        self.space, self.grid = space, Grid(space)
        self._rng = np.random.default_rng(seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters of the space."""
        return self.grid.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A random candidate while the population grows, then mutants."""
        youngest = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[-_POPULATION:]
        if len(youngest) < _POPULATION:
            return self.grid.params(self.grid.random(self._rng, 1)[0])
        drawn = [youngest[index] for index in self._rng.choice(_POPULATION, _TOURNAMENT, replace=False)]
        maximize = [each is optuna.study.StudyDirection.MAXIMIZE for each in study.directions]
        best = pareto.non_dominated([pareto.losses(each.values, maximize) for each in drawn])
        parent = self.grid.candidate(self.grid.places(drawn[int(self._rng.choice(best))].params))
        return self.grid.params(self._places(mutate(self.space, parent, self._rng).values))

    def _places(self, values: Any) -> Places:
        places = self.grid.of_values(values)
        assert places is not None
        return places

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never asked for: a candidate is proposed as a whole."""
        raise ValueError(f"{param_name} is no parameter of the search's space")
