"""Around any of Optuna's samplers: what is refused, was tried, or is a network that was tried, is not proposed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from bitwright.nas.sampling.archive import Archive
from bitwright.nas.sampling.grid import Places
from bitwright.nas.sampling.known import Known
from bitwright.nas.sampling.nearest import nearest_admissible

_DRAWS = 3  # of the sampler inside, before its last proposal is moved


class ScreenedSampler(optuna.samplers.BaseSampler):
    """Asks the sampler inside again until a proposal is admissible; moves its last one to the nearest that is.

    Args:
        inside: any sampler.
        known: what is known of candidates.
        rng: for ties among moves.
        choose_from: so many admissible proposals are drawn, and the one is taken whose known objectives lie farthest
            from those of the front: what is known before training spreads the search along it.
    """

    def __init__(
        self, inside: optuna.samplers.BaseSampler, known: Known, *, rng: np.random.Generator, choose_from: int = 1
    ) -> None:
        self.inside, self.known, self.rng, self.choose_from = inside, known, rng, choose_from

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters of the space, so that a candidate is proposed as a whole."""
        return self.known.grid.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole admissible candidate."""
        archive, grid = Archive(self.known, study, trial), self.known.grid
        if (earlier := archive.earlier_best()) is not None:
            return grid.params(earlier)
        proposals: list[Places] = []
        drawn: Places | None = None
        for _ in range(_DRAWS + self.choose_from - 1):
            drawn = self._draw(study, trial, search_space)
            if archive.admits(drawn) and drawn not in proposals:
                proposals.append(drawn)
            if len(proposals) == self.choose_from:
                break
        assert drawn is not None
        chosen = self._loneliest(proposals, archive) if proposals else nearest_admissible(drawn, archive, self.rng)
        return grid.params(chosen)

    def _draw(self, study: optuna.Study, trial: FrozenTrial, whole: dict[str, BaseDistribution]) -> Places:
        own = self.inside.infer_relative_search_space(study, trial)
        params = self.inside.sample_relative(study, trial, own)
        for name, distribution in whole.items():
            if name not in params:
                params[name] = self.inside.sample_independent(study, trial, name, distribution)
        return self.known.grid.places(params)

    def _loneliest(self, proposals: Sequence[Places], archive: Archive) -> Places:
        front = archive.losses[archive.front()]
        figures = archive.turned(self.known.figures(proposals))
        usable = ~np.isnan(figures).any(axis=0)
        if len(proposals) == 1 or not len(front) or not usable.any():
            return proposals[0]
        scale = np.ptp(archive.losses[:, usable], axis=0)
        gaps = np.abs(figures[:, None, usable] - front[None][:, :, usable]) / np.where(scale > 0, scale, math.inf)
        return proposals[int(np.argmax(gaps.max(axis=2).min(axis=1)))]

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the sampler inside; only asked for what is no parameter of the space."""
        return self.inside.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """As the sampler inside."""
        self.inside.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """As the sampler inside."""
        self.inside.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """As the sampler inside."""
        self.inside.reseed_rng()
