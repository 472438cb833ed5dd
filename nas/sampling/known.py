"""What a search knows of any candidate before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bitwright.nas.result import Outcome, Result
from bitwright.nas.sampling.grid import Floats, Grid, Places
from bitwright.nas.space import Candidate, SearchSpace
from bitwright.quant.errors import InputError

Screen = Callable[[Candidate], Result]

_LEAST = 1e-12  # stands for a figure of 0 where a logarithm is taken


@dataclass(kw_only=True)
class Known:
    """What is known of the candidates of one search; lives as long as its driver, and remembers what it was told.

    What is proposed never hangs on what is remembered: all of it is worked out again alike in another process.

    Attributes:
        space: what candidates are chosen from.
        objectives: names of the study's values, in their order.
        screen: the stages of the objective that cost no training: INFEASIBLE refuses a candidate, `figures` are what is
            known of it, `network` tells equal networks. Each candidate is asked for once. None: nothing is known.
        earlier: results of an earlier study of this space: its front is tried first, and the surrogate learns from it.
        pool: so many candidates are looked at for one suggestion, half as many more next to the best of them.
    """

    space: SearchSpace
    objectives: tuple[str, ...]
    screen: Screen | None = None
    earlier: Sequence[Result] = ()
    pool: int = 128
    grid: Grid = field(init=False, repr=False)
    _screened: dict[Places, Result] = field(default_factory=dict, init=False, repr=False)
    _streams: dict[int, list[Places]] = field(default_factory=dict, init=False, repr=False)
    _features: dict[Places, Floats] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.pool < 1:
            raise InputError(f"search: pool = {self.pool}; give at least 1 candidate to choose from")
        self.grid = Grid(self.space)

    def screened(self, places: Places) -> Result | None:
        """What the screen says of a candidate; None without a screen."""
        if self.screen is None:
            return None
        if places not in self._screened:
            self._screened[places] = self.screen(self.grid.candidate(places))
        return self._screened[places]

    def refuses(self, places: Places) -> bool:
        """Whether the screen does."""
        found = self.screened(places)
        return found is not None and found.outcome is not Outcome.SCORED

    def figures(self, pool: Sequence[Places]) -> Floats:
        """Objectives as far as they are known without training, [candidates, objectives]; NaN where they are not."""
        rows = np.full((len(pool), len(self.objectives)), np.nan)
        for row, places in zip(rows, pool, strict=True):
            found = self.screened(places)
            if found is not None:
                row[:] = [found.figures.get(name, np.nan) for name in self.objectives]
        return rows

    def names(self, candidates: Sequence[Places]) -> tuple[str, ...]:
        """Of all figures that are known of some of these candidates."""
        screened = map(self.screened, candidates)
        return tuple(sorted({name for each in screened if each is not None for name in each.figures}))

    def features(self, candidates: Sequence[Places], names: Sequence[str]) -> Floats:
        """What a surrogate sees of candidates, [candidates, features]; NaN for a figure that is not known of one.

        The places of their choices, and the logarithm of the figures `names`: what a network costs says much about how
        good it is.
        """
        new = [each for each in candidates if each not in self._features]
        self._features.update(zip(new, self.grid.features(new), strict=True))
        own = np.stack([self._features[each] for each in candidates])
        costs = np.full((len(candidates), len(names)), np.nan)
        for row, each in zip(costs, candidates, strict=True):
            found = self.screened(each)
            if found is not None:
                row[:] = [found.figures.get(name, np.nan) for name in names]
        return np.concatenate([own, np.log(np.maximum(costs, _LEAST))], axis=1)

    def stream(self, seed: int) -> list[Places]:
        """Candidates at random, the same ones for the same seed; all that there are in a space of no more than `pool`.

        About half of `pool`: the other half of what is looked at lies around the best.
        """
        if seed not in self._streams:
            rng = np.random.default_rng(seed)
            small = self.grid.size <= self.pool
            self._streams[seed] = self.grid.everything() if small else self.grid.random(rng, (self.pool + 1) // 2)
        return self._streams[seed]

    def earlier_scored(self) -> tuple[list[Places], Floats]:
        """Candidates of the earlier study that are in this space and have all objectives, with their values."""
        found: dict[Places, list[float]] = {}
        for each in self.earlier:
            places = self.grid.of_values(each.values)
            if places is not None and all(name in each.figures for name in self.objectives):
                found[places] = [each.figures[name] for name in self.objectives]
        return list(found), np.array(list(found.values())).reshape(len(found), len(self.objectives))
