"""How long does a study of 3,000 trials think about the next one, and how long does its report take?

A study on SQLite is filled with random candidates. Then the search goes on with TPE, and plain Optuna does on a copy of
the same file, with the same sampler, suggesting and telling as its own loop does.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import optuna

from bitwright.experiments import host
from bitwright.experiments.benchmarks import made_up_search
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.record import Record as RunRecord
from bitwright.experiments.record import StageRecord
from bitwright.experiments.search_result import SearchResult
from bitwright.experiments.views import write_views
from bitwright.nas.sampling.registry import make_sampler
from bitwright.nas.search import search
from bitwright.nas.search_outcome import SearchOutcome, Told
from bitwright.nas.settings import SearchSettings
from bitwright.nas.space import sample
from bitwright.nas.workers import InProcess

ROW = "search_3000"
TRIALS = 3000
MORE = 12  # suggestions that are timed


def run(bench: Bench) -> list[Record]:
    """Fills the study, then times ours, plain Optuna's, and the report."""
    del bench  # it needs no data
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        _search(folder / "ours", TRIALS, "random")
        filled_s = time.perf_counter() - began
        shutil.copy(folder / "ours" / "study.db", folder / "plain.db")
        times: list[float] = []
        outcome = _search(folder / "ours", TRIALS + MORE, "tpe", times)
        ours = _median_ms(times[-MORE - 1 :])
        plain = _plain_ms(folder / "plain.db")
        report_s = _report_s(outcome, folder / "run")
    trials = len(outcome.trials)
    table = [
        {"search": "ours, from one told to the next", "ms": f"{ours:.0f}"},
        {"search": "plain Optuna: ask, suggest, tell", "ms": f"{plain:.0f}"},
        {"search": f"ours, filling with random candidates: {filled_s:.0f} s", "ms": f"{filled_s / TRIALS * 1e3:.1f}"},
    ]
    return [
        record(f"{ROW}.suggestion", area="nas", value=ours, unit="ms", n=MORE, reach=Reach("≤", 200.0), table=table),
        record(f"{ROW}.report", area="nas", value=report_s, unit="s", n=trials, reach=Reach("≤", 30.0)),
    ]


def _search(folder: Path, trials: int, sampler: str, times: list[float] | None = None) -> SearchOutcome:
    """Searches; `times` gets the moment at which each trial was told."""

    def note(told: Told) -> None:
        if times is not None:
            times.append(time.perf_counter())

    settings = SearchSettings(trials=trials, objectives=("accuracy", "macs"), sampler=sampler)
    return search(
        made_up_search.Space(),
        made_up_search.made_up_workload(),
        settings,
        folder,
        workers=InProcess(made_up_search.evaluate),
        on_told=note,
    )


def _median_ms(times: list[float]) -> float:
    return statistics.median(after - before for before, after in itertools.pairwise(times)) * 1e3


def _plain_ms(database: Path) -> float:
    """The same by Optuna alone, its sampler kept from one suggestion to the next."""
    study = optuna.load_study(
        study_name="search", storage=f"sqlite:///{database}", sampler=make_sampler("tpe", seed=0, told=TRIALS)
    )
    study.get_trials(deepcopy=False)  # its cache is filled
    times = [time.perf_counter()]
    for _ in range(MORE):
        trial = study.ask()
        result = made_up_search.result_of(sample(made_up_search.Space(), trial))
        for each in result.violations:
            trial.set_constraint(each.constraint, each.amount)
        if result.violations:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, [result.figures["accuracy"], result.figures["macs"]])
        times.append(time.perf_counter())
    return _median_ms(times)


def _report_s(outcome: SearchOutcome, folder: Path) -> float:
    """From what the driver gives back to the page and TensorBoard's files, in a run's folder."""
    began = time.perf_counter()
    result = SearchResult.of(outcome, metric="top1", unit="%")
    recipe = load_recipe("digits_search")
    now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    found = RunRecord(
        name=recipe.name,
        description=recipe.description,
        target="x86-vnni",
        seed=0,
        started=now,
        finished=now,
        versions=host.versions(),
        git=None,
        host=host.host(),
        recipe=recipe.model_dump(mode="json"),
        stages={"search": StageRecord(status="done", result=result.model_dump(mode="json"))},
    )
    folder.mkdir()
    (folder / "record.json").write_text(found.model_dump_json())
    write_views(folder)
    return time.perf_counter() - began
