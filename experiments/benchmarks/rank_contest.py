"""Inherited against stand-alone scores of one space of networks: who is asked, how both are found, and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bitwright.experiments.benchmarks.kept import digest
from bitwright.experiments.benchmarks.narrow_networks import NarrowNet, narrow_space
from bitwright.experiments.benchmarks.once_for_all import train_once_for_all
from bitwright.experiments.datasets.digits import Settings as DigitsSettings
from bitwright.experiments.datasets.digits import open_digits
from bitwright.experiments.supernet_task import DataTask
from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.elastic.built import BuiltElastic
from bitwright.nas.moves import random_candidate, sample_at_cost
from bitwright.nas.space import Candidate
from bitwright.nas.supernet import InheritedAccuracy, StandAloneAccuracy, SupernetSettings, train_supernet

OURS, REFERENCE = "ours", "once-for-all-style"
SIDES = (OURS, REFERENCE)
BAND = 0.10  # of the MACs, to either side
_SIDE_LENGTH, _BATCH = 8, 64
# What else than these files decides a training is in the identity of the contest.
_NETWORKS = ("experiments.benchmarks.narrow_networks", "experiments.datasets.digits", "nas.supernet.optimization")
_CODE_ALONE = (*_NETWORKS, "nas.supernet.stand_alone", "nas.supernet.recalibration")
_CODE_SHARED = {
    OURS: (*_NETWORKS, "nas.elastic.parts", "nas.supernet.sandwich", "nas.supernet.shrinking", "nas.supernet.training"),
    REFERENCE: (*_NETWORKS, "nas.elastic.parts", "experiments.benchmarks.once_for_all"),
}


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One space of narrow networks on scikit-learn's digits at their own 8×8 pixels.

    Attributes:
        widths: channels that stages may have.
        shared: how ours is trained; the reference gets as many passes through networks at the same rate.
        alone: how networks are trained by themselves.
        candidates: drawn from the whole space.
        alike: drawn from a band of MACs around the median of those.
        seeds: of the trainings by themselves; the first also decides who is drawn.
        folder: where everything is kept.
    """

    widths: tuple[int, ...]
    shared: SupernetSettings
    alone: SupernetSettings
    candidates: int
    alike: int
    seeds: tuple[int, ...]
    folder: Path

    @cached_property
    def space(self) -> DeclaredSpace:
        """The space."""
        return narrow_space(self.widths)

    @cached_property
    def task(self) -> DataTask:
        """What all networks learn, and are scored by."""
        data = open_digits(DigitsSettings(size=_SIDE_LENGTH))
        return DataTask(data=data, read=lambda batch: (batch[0],), batch=_BATCH)

    def macs(self, candidate: Candidate) -> float:
        """Of one picture, counted from shapes."""
        network = NarrowNet(self.space.architecture(candidate)).to("meta").eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, _SIDE_LENGTH, _SIDE_LENGTH, device="meta"))
        return float(counter.get_total_flops()) / 2  # a multiplication and an addition each

    @cached_property
    def anywhere(self) -> list[Candidate]:
        """Different candidates from the whole space."""
        return self._different(self.candidates, lambda rng: random_candidate(self.space, rng), seed=self.seeds[0])

    @cached_property
    def of_equal_cost(self) -> list[Candidate]:
        """Different candidates whose MACs lie within the band around the median of `anywhere`."""
        middle = float(np.median([self.macs(each) for each in self.anywhere]))
        low, high = (1 - BAND) * middle, (1 + BAND) * middle

        def draw(rng: np.random.Generator) -> Candidate:
            return sample_at_cost(self.space, rng, self.macs, low, high)

        return self._different(self.alike, draw, seed=self.seeds[0] + 1)

    def _different(self, count: int, draw: Callable[[np.random.Generator], Candidate], *, seed: int) -> list[Candidate]:
        rng, found = np.random.default_rng(seed), dict[str, Candidate]()
        while len(found) < count:
            candidate = draw(rng)
            found.setdefault(candidate.key, candidate)
        return list(found.values())

    @cached_property
    def alone_accuracy(self) -> StandAloneAccuracy:
        """Candidate and seed to the score of a training by itself."""

        def fresh(candidate: Candidate, seed: int) -> torch.nn.Module:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                return NarrowNet(self.space.architecture(candidate))

        name = digest(f"{self.alone} {self.task.fingerprint}", _CODE_ALONE)
        return StandAloneAccuracy(
            space=self.space, build=fresh, task=self.task, settings=self.alone, folder=self.folder / f"alone-{name}"
        )

    def inherited(self, side: str) -> InheritedAccuracy:
        """Candidate to the score with shared weights; trains them where that was not done yet."""
        name = digest(f"{self.widths} {self.shared} {self.task.fingerprint}", _CODE_SHARED[side])
        folder = self.folder / f"{side}-{name}"
        with torch.random.fork_rng():
            torch.manual_seed(self.shared.seed)
            example = (torch.zeros(1, 3, _SIDE_LENGTH, _SIDE_LENGTH),)
            elastic = BuiltElastic(self.space, NarrowNet, example=example)
        if side == OURS:
            train_supernet(elastic, self.task, self.shared, folder)
        else:
            train_once_for_all(elastic, self.task, folder, passes=self.passes, lr=self.shared.lr, seed=self.shared.seed)
        return InheritedAccuracy(elastic=elastic, task=self.task, folder=folder, calibration=self.shared.calibration)

    @property
    def passes(self) -> int:
        """Forward and backward passes through networks that ours takes: the sandwich is two and those by chance."""
        return self.shared.epochs * self.task.steps * (2 + self.shared.random)
