"""The driver: asks the sampler, evaluates, writes the result, tells; and takes up where a killed driver stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna

from bitwright.hw_constraints.table import KernelTable
from bitwright.nas.figures import FIGURES
from bitwright.nas.latency import device_name, open_reference
from bitwright.nas.objective import evaluate
from bitwright.nas.result import Outcome, Result, ResultFiles
from bitwright.nas.samplers import check_sampler, make_sampler
from bitwright.nas.search_outcome import SearchOutcome, Told, nothing_feasible
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate, SearchSpace, definition, sample, size
from bitwright.nas.study import note_candidate, opened, owned, recover, tell, told
from bitwright.nas.workload import Workload
from bitwright.quant.errors import InputError, unknown

LATENCY, PREDICTED = "latency_ms", "predicted_ms"
_MOST_REPEATS = 100  # in a row: the sampler has nothing new to propose
_MOST_FAILURES = 5  # in a row: it is not the candidates' fault


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How to search.

    Attributes:
        trials: different candidates to try, infeasible ones included.
        sampler: a name of `samplers.SAMPLERS`.
        seed: of the sampler.
        objectives: names of `figures.FIGURES`; accuracy goes the way of its metric, all others down.
        limits: the largest permitted value of figures, by name.
        threads: of the runtime when latency is measured.
        table: measured kernels that latencies are predicted from, before anything is trained.
    """

    trials: int
    sampler: str = "tpe"
    seed: int = 0
    objectives: tuple[str, ...] = ("accuracy", LATENCY)
    limits: Mapping[str, float] = field(default_factory=dict)
    threads: int = 1
    table: Path | None = None

    def __post_init__(self) -> None:
        check_sampler(self.sampler)
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise InputError(f"search objectives = {list(self.objectives)}; give at least one, each once")
        for name in (*self.objectives, *self.limits):
            if name not in FIGURES:
                raise unknown("search figure", name, FIGURES)
        if self.needs_prediction and self.table is None:
            raise InputError(f"search figure {PREDICTED!r} needs search.table; make one: bitwright measure kernels")

    @property
    def wants_latency(self) -> bool:
        """Whether anything has to be timed."""
        return LATENCY in self.objectives or LATENCY in self.limits

    @property
    def needs_prediction(self) -> bool:
        """Whether a candidate has no score without a predicted latency."""
        return PREDICTED in self.objectives or PREDICTED in self.limits


Evaluate = Callable[[Candidate, Setup], Result]


def search(
    space: SearchSpace,
    workload: Workload,
    settings: SearchSettings,
    folder: Path,
    *,
    evaluate: Evaluate = evaluate,
    on_told: Callable[[Told], None] | None = None,
) -> SearchOutcome:
    """Searches, or goes on with a search that was interrupted.

    Args:
        space: what can be chosen.
        workload: network, data, task and target.
        settings: how to search.
        folder: the study and all files of the search; it belongs to one driver at a time.
        evaluate: scores a candidate.
        on_told: called after each trial, and at the start for those of earlier runs.

    Raises:
        InputError: the space is empty or nothing in it is feasible, the folder holds a search of another definition
            or another driver's, the target's artefacts cannot be timed here, or every candidate fails.
    """
    runtime = _runtime(workload, settings)
    maximize = tuple(name == "accuracy" and workload.higher_is_better for name in settings.objectives)
    defined = _definition(space, workload, settings, runtime)
    with (
        owned(folder),
        opened(folder, names=settings.objectives, maximize=maximize, definition=defined) as study,
    ):
        reference = open_reference(workload, runtime, folder, threads=settings.threads) if runtime else None
        setup = Setup(
            space=space, workload=workload, folder=folder, reference=reference, limits=dict(settings.limits),
            table=settings.table, prediction_needed=settings.needs_prediction,
        )  # fmt: skip
        driver = _Driver(study, setup, settings, evaluate, on_told or (lambda told: None))
        recovered = recover(study, space, driver.files, settings.objectives)
        driver.run()
    outcome = SearchOutcome(
        trials=tuple(driver.trials), objectives=settings.objectives, maximize=maximize, recovered=recovered
    )
    if not outcome.scored:
        raise InputError(nothing_feasible(outcome.results, workload.target.id))
    return outcome


def _runtime(workload: Workload, settings: SearchSettings) -> str | None:
    if not settings.wants_latency:
        return None
    if workload.runtime is None:
        others = ", ".join(name for name in FIGURES if name != LATENCY)
        raise InputError(
            f"search objective {LATENCY!r}: nothing on this machine runs the artefacts of target "
            f"{workload.target.id!r}; choose among {others}"
        )
    return workload.runtime


def _definition(
    space: SearchSpace, workload: Workload, settings: SearchSettings, runtime: str | None
) -> dict[str, Any]:
    """What all scores of one study share; the number of trials, the sampler and its seed may change on the way."""
    return {
        "space": definition(space),
        "objectives": list(settings.objectives),
        "limits": dict(settings.limits),
        "target": f"{workload.target.id} version {workload.target.version}",
        "workload": dict(workload.fingerprint),
        "bitwright": version("bitwright"),
        "device": f"{device_name(runtime)}, {settings.threads} threads" if runtime else None,
        "table": KernelTable.load(settings.table).content_hash if settings.table else None,
    }


class _Driver:
    """Asks, evaluates and tells until enough different candidates have been tried."""

    def __init__(
        self,
        study: optuna.Study,
        setup: Setup,
        settings: SearchSettings,
        evaluate: Evaluate,
        on_told: Callable[[Told], None],
    ) -> None:
        self.study, self.setup, self.settings = study, setup, settings
        self.evaluate, self.on_told = evaluate, on_told
        self.files = ResultFiles(setup.results)
        self.trials: list[Told] = []
        self.different: set[str] = set()

    def run(self) -> None:
        for number, key in told(self.study):
            self._count(number, self._known(key))
        while len(self.different) < min(self.settings.trials, size(self.setup.space)):
            self._one_trial()
            if self._in_a_row(lambda each: each.repeated) >= _MOST_REPEATS:
                return
            if self._in_a_row(lambda each: each.result.outcome is Outcome.FAILED) >= _MOST_FAILURES:
                last = self.trials[-1].result
                raise InputError(
                    f"search: {_MOST_FAILURES} candidates in a row failed; the last one ({Candidate(last.values)}) "
                    f"with {last.reason}"
                )

    def _one_trial(self) -> None:
        self.study.sampler = make_sampler(self.settings.sampler, seed=self.settings.seed, told=len(self.trials))
        trial = self.study.ask()
        candidate = sample(self.setup.space, trial)
        note_candidate(trial, candidate)
        result = self.files.get(candidate.key)
        if result is None:
            result = self.evaluate(candidate, self.setup)
            self.files.put(result)  # before it is told: what is on the disk is never evaluated again
        tell(self.study, trial, result, self.settings.objectives)
        self._count(trial.number, result)

    def _known(self, key: str) -> Result:
        result = self.files.get(key)
        if result is None:
            raise InputError(
                f"{self.files.folder}: the result of candidate {key} is gone, though the study has it; "
                "put it back, or name another folder"
            )
        return result

    def _count(self, number: int, result: Result) -> None:
        self.trials.append(Told(number=number, result=result, repeated=result.key in self.different))
        self.different.add(result.key)
        self.on_told(self.trials[-1])

    def _in_a_row(self, condition: Callable[[Told], bool]) -> int:
        count = 0
        for each in reversed(self.trials):
            if not condition(each):
                break
            count += 1
        return count
