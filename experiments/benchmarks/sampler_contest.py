"""Searches on tables by ours and by peers: each peer bare, and once with all that ours is told."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna

from bitwright.experiments.benchmarks.kept import kept
from bitwright.experiments.benchmarks.regularised_evolution import RegularisedEvolution
from bitwright.experiments.benchmarks.tabular_space import MAXIMIZE, OBJECTIVES, Table
from bitwright.nas.result import Outcome, Result
from bitwright.nas.sampling.known import Known
from bitwright.nas.sampling.registry import INFORMED, make_sampler
from bitwright.nas.sampling.screened import ScreenedSampler
from bitwright.nas.space import sample
from bitwright.nas.study import tell

PEERS = ("tpe", "nsga2", "evolution", "random")
EVALUATIONS = 200
_CODE = ("nas.sampling", "experiments.benchmarks.sampler_contest", "experiments.benchmarks.regularised_evolution")


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A sampler as it takes part.

    Attributes:
        name: `informed`, or one of `PEERS`.
        equipped: whether a peer gets the screen: no duplicates, nothing that is refused, latencies. Of so many
            admissible proposals it then tries the one whose known latency lies farthest from those of its front.
    """

    name: str
    equipped: int = 0

    def __str__(self) -> str:
        return f"{self.name} equipped" if self.equipped else self.name

    def sampler(self, known: Known, seed: int, told: int) -> optuna.samplers.BaseSampler:
        """Made anew for each suggestion, as the driver does."""
        if self.name == INFORMED:
            return make_sampler(INFORMED, seed=seed, told=told, known=known)
        if self.name == "evolution":
            mixed = int(np.random.SeedSequence([seed, told]).generate_state(1)[0])
            bare: optuna.samplers.BaseSampler = RegularisedEvolution(known.space, seed=mixed)
        else:
            bare = make_sampler(self.name, seed=seed, told=told)
        if not self.equipped:
            return bare
        return ScreenedSampler(bare, known, rng=np.random.default_rng([seed, told]), choose_from=self.equipped)


def search_table(table: Table, contestant: Contestant, seed: int, evaluations: int) -> tuple[list[str], float]:
    """Keys of the candidates that were evaluated, in order, and the CPU seconds that proposing them took."""
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    known = Known(space=table.space, objectives=OBJECTIVES, screen=table.screen)
    study = optuna.create_study(directions=["maximize" if up else "minimize" for up in MAXIMIZE])
    keys, seconds = [], 0.0
    for told in range(evaluations):
        began = time.process_time()
        study.sampler = contestant.sampler(known, seed, told)
        trial = study.ask()
        candidate = sample(table.space, trial)
        seconds += time.process_time() - began
        tell(study, trial, table.evaluate(candidate), OBJECTIVES)
        keys.append(candidate.key)
    return keys, seconds


def kept_search(
    table: Table, contestant: Contestant, seed: int, folder: Path, *, evaluations: int = EVALUATIONS
) -> list[Result]:
    """What a search evaluated, in order; looked for once."""

    def look() -> dict[str, object]:
        keys, seconds = search_table(table, contestant, seed, evaluations)
        return {"keys": keys, "seconds": seconds}

    content = f"{sorted(each.model_dump_json() for each in table.results.values())}"
    identity = f"{contestant!r} {seed} {evaluations} {content}"
    name = f"{table.name}-{contestant}-{seed}".replace(" ", "-")
    return [table.results[key] for key in kept(folder, name, identity, _CODE, look)["keys"]]


def regret(table: Table, found: Sequence[Result], at: int) -> float:
    """The share of the whole table's hypervolume that the first so many evaluations lack."""
    return 1.0 - table.hypervolume(each for each in found[:at] if each.outcome is Outcome.SCORED)
