"""A search: the study is opened or taken up again, the driver runs, what it found comes back."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.table import KernelTable
from bitwright.hw_constraints.target_types import Capability
from bitwright.nas.driver import Driver
from bitwright.nas.figures import LOWERED, SOUGHT, is_more_better
from bitwright.nas.latency import device_name, open_reference, timed_runtimes
from bitwright.nas.objective import evaluate, screen
from bitwright.nas.result import Result
from bitwright.nas.search_outcome import SearchOutcome, Told, nothing_feasible
from bitwright.nas.settings import LATENCY, SearchSettings
from bitwright.nas.setup import Setup
from bitwright.nas.space import SearchSpace, definition
from bitwright.nas.standing import INHERITED
from bitwright.nas.storage import DatabaseLost, says_when_full, study_place
from bitwright.nas.study import opened
from bitwright.nas.workers import InProcess, Workers
from bitwright.nas.workload import Inherited, Workload
from bitwright.quant.errors import InputError


def search(
    space: SearchSpace,
    workload: Workload,
    settings: SearchSettings,
    folder: Path,
    *,
    others: Sequence[Workload] = (),
    inherited: Inherited | None = None,
    earlier: Sequence[Result] = (),
    workers: Workers | None = None,
    database: str | None = None,
    name: str = "search",
    on_told: Callable[[Told], None] | None = None,
    on_wait: Callable[[str], None] = lambda message: None,
) -> SearchOutcome:
    """Searches, or goes on with a search that was interrupted.

    Args:
        space: what can be chosen.
        workload: network, data, task and target.
        settings: how to search.
        folder: the study and all files of the search; it belongs to one driver at a time.
        others: the same task on further targets; latency is measured on each that something here runs.
        inherited: a trained supernet; candidates begin with its weights.
        earlier: results of earlier studies (`nas.earlier`), whose best candidates are tried first.
        workers: who evaluates; this process by default.
        database: `postgresql://host/database` where the study is kept; SQLite in the folder by default.
        name: of the study in such a database.
        on_told: called after each trial, and at the start for those of earlier runs.
        on_wait: told in words when the database does not answer.

    Raises:
        InputError: the space is empty or nothing in it is feasible, the folder holds a search of another definition
            or another driver's, a disk is full, the target's artefacts cannot be timed here, every candidate fails, or
            the database is lost for longer than `storage.PATIENCE_S`.
    """
    workers = workers or InProcess(evaluate)
    runtimes = _runtimes((workload, *others), settings)
    _check_figures(settings, (workload, *others), inherited)
    maximize = tuple(is_more_better(each, higher_is_better=workload.higher_is_better) for each in settings.objectives)
    device = f"{workers.on_device(device_name, *runtimes)}, {settings.threads} threads" if runtimes else None
    defined = _definition(space, (workload, *others), settings, device)
    setup: Setup | None = None
    seen: set[int] = set()

    def tell_once(told: Told) -> None:
        if on_told is not None and told.number not in seen:
            on_told(told)
        seen.add(told.number)

    for attempt in itertools.count():
        with (
            suppress(DatabaseLost),
            says_when_full(folder),
            study_place(folder, database=database, name=name, patient=attempt > 0, on_wait=on_wait) as place,
            opened(place, names=settings.objectives, maximize=maximize, definition=defined, folder=folder) as study,
        ):
            if setup is None:
                references = {
                    each: workers.on_device(open_reference, workload, each, folder, threads=settings.threads)
                    for each in runtimes
                }
                setup = Setup(
                    space=space, workload=workload, folder=folder, references=references, limits=dict(settings.limits),
                    table=settings.table, prediction_needed=settings.needs_prediction, others=tuple(others),
                    weights=settings.weights, wanted=settings.named, inherited=inherited,
                    objectives=settings.objectives, maximize=maximize, rungs=settings.rungs,
                )  # fmt: skip
                workers.begin(setup)
            screening = functools.partial(screen, setup=setup)
            driver = Driver(study, setup, settings, workers, tell_once, screening, earlier)
            driver.run()
            break
    outcome = SearchOutcome(
        trials=tuple(driver.trials), objectives=settings.objectives, maximize=maximize, recovered=driver.recovered
    )
    if not outcome.scored:
        raise InputError(nothing_feasible(outcome.results, workload.target.id))
    return outcome


def _check_figures(settings: SearchSettings, workloads: Sequence[Workload], inherited: Inherited | None) -> None:
    targets = [each.target.id for each in workloads]
    if len(set(targets)) < len(targets):
        raise InputError(f"search targets = {targets}; name each once")
    if settings.weights is not None and set(settings.weights) != set(targets):
        raise InputError(f"search weights are of {sorted(settings.weights)}; the targets are {sorted(targets)}")
    if INHERITED in settings.named and inherited is None:
        raise InputError(f"search figure {INHERITED!r} needs search.supernet, whose weights candidates inherit")
    modelled = settings.named.intersection(LOWERED)
    if modelled and not any(Capability.COST in each.target.capabilities for each in workloads):
        workloads[0].target.require(Capability.COST)


def _runtimes(workloads: Sequence[Workload], settings: SearchSettings) -> tuple[str, ...]:
    if not settings.wants_latency:
        return ()
    found = timed_runtimes(workloads)
    if not found:
        others = ", ".join(name for name in SOUGHT if name != LATENCY)
        targets = " or ".join(repr(each.target.id) for each in workloads)
        raise InputError(
            f"search objective {LATENCY!r}: nothing on this machine runs the artefacts of target {targets}; "
            f"choose among {others}"
        )
    return found


def _definition(
    space: SearchSpace, workloads: Sequence[Workload], settings: SearchSettings, device: str | None
) -> dict[str, Any]:
    """What all scores of one study share; the number of trials, the sampler and its seed may change on the way."""
    workload = workloads[0]
    return {
        "space": definition(space),
        "objectives": list(settings.objectives),
        "limits": dict(settings.limits),
        "target": " and ".join(f"{each.target.id} version {each.target.version}" for each in workloads),
        "other targets": [dict(each.fingerprint) for each in workloads[1:]],
        "weights": None if settings.weights is None else dict(settings.weights),
        "workload": dict(workload.fingerprint),
        "bitwright": version("bitwright"),
        "device": device,
        "table": KernelTable.load(settings.table).content_hash if settings.table else None,
    }
