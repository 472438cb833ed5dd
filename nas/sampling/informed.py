"""A sampler that models only what is not known: what costs, and what is refused, it has from the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from bitwright.nas.sampling.archive import Archive
from bitwright.nas.sampling.expectation import Expectation, Scale
from bitwright.nas.sampling.grid import Places
from bitwright.nas.sampling.known import Known
from bitwright.nas.sampling.nearest import nearest_admissible

_SPREAD_AT_FIRST = 8  # candidates before a surrogate is asked
_CLIMBED_FROM, _CLIMBS = 4, 2  # the best candidates of the pool have their neighbours looked at, twice


class InformedSampler(optuna.samplers.BaseSampler):
    """Proposes the admissible candidate of the largest expected hypervolume improvement.

    The first few are those that lie farthest from all before them, the front of an earlier study first of all. What is
    being evaluated counts as told, with what is expected of it; so a batch is spread by itself.

    Args:
        known: what is known of candidates.
        seed: of the search.
        told: how many trials were asked for before.
    """

    def __init__(self, known: Known, *, seed: int, told: int) -> None:
        self.known, self.grid = known, known.grid
        self._seed, self._quarter = seed, (known.pool + 3) // 4
        self._rng = np.random.default_rng([seed, told])

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters of the space, so that a candidate is proposed as a whole."""
        return self.grid.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole admissible candidate."""
        archive = Archive(self.known, study, trial)
        return self.grid.params(archive.earlier_best() or self._proposal(archive))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Only asked for what is no parameter of the space: at random."""
        random = optuna.samplers.RandomSampler(seed=int(self._rng.integers(2**31)))
        return random.sample_independent(study, trial, param_name, param_distribution)

    def _proposal(self, archive: Archive) -> Places:
        pool = self._pool(archive)
        if not pool:
            return nearest_admissible(self.grid.random(self._rng, 1)[0], archive, self._rng)
        basis = [each for each in self.known.stream(self._seed) if not self.known.refuses(each)] or pool
        if len(archive.scored) < 2 or len(archive.seen) < _SPREAD_AT_FIRST:
            return self._farthest(pool, archive)
        expectation = Expectation(archive, pool, basis)
        gains = dict(zip(pool, expectation.improvement(pool), strict=True))
        for _ in range(_CLIMBS):
            best = sorted(gains, key=lambda each: -gains[each])[:_CLIMBED_FROM]
            near = dict.fromkeys(n for each in best for n in self.grid.neighbours(each) if n not in gains)
            new = [each for each in list(near)[: self._quarter] if archive.admits(each)]
            if new:
                gains.update(zip(new, expectation.improvement(new), strict=True))
        return max(gains, key=lambda each: gains[each])

    def _pool(self, archive: Archive) -> list[Places]:
        """Admissible candidates: the neighbours of the front, always the same at random, and some others at random."""
        stream, quarter = self.known.stream(self._seed), self._quarter
        if self.grid.size <= self.known.pool:
            return [each for each in stream if archive.admits(each)]
        near = list(dict.fromkeys(n for index in archive.front() for n in self.grid.neighbours(archive.scored[index])))
        if len(near) > quarter:
            near = [near[index] for index in self._rng.choice(len(near), quarter, replace=False)]
        others = self.grid.random(self._rng, quarter)
        return [each for each in dict.fromkeys((*near, *stream, *others)) if archive.admits(each)]

    def _farthest(self, pool: Sequence[Places], archive: Archive) -> Places:
        """The candidate that lies farthest from all that were proposed; at first the one in the middle."""
        scale = Scale(self.known, pool)
        features = scale.features(pool)
        taken = [each for each in archive.seen if not self.known.refuses(each)]
        middle = np.median(features, axis=0)[None]
        there = scale.features(taken) if taken else middle
        apart = ((features[:, None] - there[None]) ** 2).sum(axis=2).min(axis=1)
        return pool[int(np.argmax(apart) if taken else np.argmin(apart))]
