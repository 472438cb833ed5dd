"""What proposing a candidate costs: CPU per trial at 28 dimensions and 500 trials, beside TPE and NSGA-II."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.tabular_space import MAXIMIZE, OBJECTIVES
from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.result import Outcome, Result
from bitwright.nas.sampling.known import Known
from bitwright.nas.sampling.registry import INFORMED, make_sampler
from bitwright.nas.space import Candidate, Parameter, sample
from bitwright.nas.study import tell

DIMENSIONS, TOLD, TRIALS = 28, 500, 40
_BESIDE = ("tpe", "nsga2")


@dataclass
class MadeUp:
    """28 decisions of four choices, every fourth unordered; a third of all candidates is refused.

    Attributes:
        seconds: CPU that the formula itself took, which is no cost of a sampler.
    """

    seconds: float = 0.0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.gain, self.cost = rng.normal(size=(DIMENSIONS, 4)), rng.uniform(size=(DIMENSIONS, 4))
        self.space = DeclaredSpace(
            own=tuple(Parameter(name=f"d{i}", choices=(0, 1, 2, 3), ordered=i % 4 > 0) for i in range(DIMENSIONS))
        )

    def evaluate(self, candidate: Candidate, *names: str) -> Result:
        """Its figures, all or some."""
        began = time.process_time()
        codes: list[Any] = list(candidate.values.values())
        figures: Mapping[str, float] = {
            "accuracy": float(np.tanh(self.gain[range(DIMENSIONS), codes].sum() / 8)),
            "predicted_ms": float(self.cost[range(DIMENSIONS), codes].sum()),
        }
        refused = (codes[0] + codes[1]) % 3 == 0
        result = Result(
            key=candidate.key, values=dict(candidate.values), stage="made up", network=candidate.key,
            outcome=Outcome.INFEASIBLE if refused else Outcome.SCORED,
            figures={} if refused else {name: figures[name] for name in names or OBJECTIVES},
        )  # fmt: skip
        self.seconds += time.process_time() - began
        return result


def run(bench: Bench) -> list[Record]:
    """The same 500 random trials are told to each, then 40 more are asked for, after one that imports what it takes."""
    ms = {name: _ms(name) for name in (INFORMED, *_BESIDE)}
    lines = [{"sampler": name, "CPU ms per trial": each} for name, each in ms.items()]
    return [
        record(
            "search_sampler_cpu.informed", area="search", value=ms[INFORMED], n=TRIALS,
            unit="ms CPU per trial at 28 dimensions and 500 trials", reach=Reach("≤", 50), table=lines,
        )
    ]  # fmt: skip


def _ms(name: str) -> float:
    made_up = MadeUp()
    known = None
    if name == INFORMED:
        known = Known(
            space=made_up.space, objectives=OBJECTIVES, screen=lambda each: made_up.evaluate(each, "predicted_ms")
        )
    study = optuna.create_study(directions=["maximize" if up else "minimize" for up in MAXIMIZE])
    seconds = []
    for told in range(TOLD + 1 + TRIALS):
        made_up.seconds, began = 0.0, time.process_time()
        asked = told >= TOLD
        study.sampler = make_sampler(name if asked else "random", seed=0, told=told, known=known if asked else None)
        trial = study.ask()
        candidate = sample(made_up.space, trial)
        seconds.append(time.process_time() - began - made_up.seconds)
        tell(study, trial, made_up.evaluate(candidate), OBJECTIVES)
    return 1e3 * float(np.mean(seconds[-TRIALS:]))
