from collections.abc import Callable

import optuna
import pytest

from bitwright.experiments.benchmarks.tabular_landscapes import landscape
from bitwright.experiments.benchmarks.tabular_space import MAXIMIZE, OBJECTIVES, Table
from bitwright.nas.sampling.known import Known
from bitwright.nas.sampling.registry import make_sampler
from bitwright.nas.space import Candidate, sample
from bitwright.nas.study import note_candidate, tell


@pytest.fixture(scope="session")
def table() -> Table:
    """144 candidates, some refused."""
    return landscape(1, sizes=(4, 3, 4, 3))


Search = Callable[..., list[Candidate]]


@pytest.fixture
def search(table: Table) -> Search:
    """Runs trials of a study as the driver does, `batch` asked for at once; returns what was proposed, in order."""

    def run(
        study: optuna.Study, sampler: str, trials: int, *, batch: int = 1, seed: int = 3, known: Known | None = None
    ) -> list[Candidate]:
        known = known or Known(space=table.space, objectives=OBJECTIVES, screen=table.screen, pool=64)
        proposed: list[Candidate] = []
        while len(proposed) < trials:
            asked = []
            for _ in range(batch):
                told = len(study.get_trials(deepcopy=False))
                study.sampler = make_sampler(sampler, seed=seed, told=told, known=known)
                trial = study.ask()
                candidate = sample(table.space, trial)
                note_candidate(trial, candidate)
                asked.append((trial, candidate))
            for trial, candidate in asked:
                tell(study, trial, table.evaluate(candidate), OBJECTIVES)
                proposed.append(candidate)
        return proposed

    return run


@pytest.fixture
def new_study() -> Callable[[], optuna.Study]:
    return lambda: optuna.create_study(directions=["maximize" if up else "minimize" for up in MAXIMIZE])
