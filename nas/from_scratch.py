"""Candidates of the front trained from scratch by a training of their own, in place of what the search scored.

Each is evaluated like any candidate, by the same workers, and its result is written under its hash, in a folder that
the hash of the training names: what is there is looked up, so an interrupted run goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bitwright.nas.figures import SCRATCH
from bitwright.nas.result import Outcome, Result, ResultFiles
from bitwright.nas.search_outcome import SearchOutcome
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate, SearchSpace, hash_of
from bitwright.nas.storage import says_when_full
from bitwright.nas.supernet import RankCorrelation, rank_correlation
from bitwright.nas.workers import Workers
from bitwright.nas.workload import Workload

FEWEST = 8  # scores, for an interval of their order that means something


def trained_from_scratch(
    front: Sequence[Result],
    space: SearchSpace,
    workloads: Sequence[Workload],
    folder: Path,
    workers: Workers,
    *,
    weights: Mapping[str, float] | None = None,
    on_done: Callable[[Result], None] = lambda result: None,
) -> dict[str, Result]:
    """Trains, quantizes and scores each candidate, from the weights that `workloads[0].build` gives it.

    Args:
        front: what to train.
        space: what it was chosen from.
        workloads: the task on each target, with the training that is meant.
        folder: of the search; results and weights go to `from-scratch-HASH` in it.
        workers: who evaluates.
        weights: of the targets, as in the search.
        on_done: called after each.

    Returns:
        Results by key: scored without any latency, or failed with the reason.

    Raises:
        InputError: the disk is full, or a worker is of another version or without the data.
    """
    training = hash_of([dict(each.fingerprint) for each in workloads])
    own = folder / f"from-scratch-{training}"
    setup = Setup(space=space, workload=workloads[0], others=tuple(workloads[1:]), folder=own, weights=weights)
    files, found = ResultFiles(setup.results), dict[str, Result]()

    def take(result: Result) -> None:
        found[result.key] = result
        on_done(result)

    with says_when_full(folder):
        own.mkdir(parents=True, exist_ok=True)
        missing = []
        for each in front:
            known = files.get(each.key)
            if known is None:
                missing.append(Candidate(each.values))
            else:
                take(known)
        if missing:
            workers.begin(setup)
        for candidate in missing:
            workers.submit(candidate)
        for _ in missing:
            result = workers.next()
            if files.get(result.key) != result:
                files.put(result)
            take(result)
    return found


def with_scores(outcome: SearchOutcome, found: Mapping[str, Result]) -> SearchOutcome:
    """The search with the figure `SCRATCH` of those that were trained from scratch, and its interval."""

    def scored(result: Result) -> Result:
        again = found.get(result.key)
        if again is None or again.outcome is not Outcome.SCORED:
            return result
        own = {name: value for name, value in again.figures.items() if name.startswith("accuracy")}
        own = {name.replace("accuracy", SCRATCH, 1): value for name, value in own.items()}
        return result.model_copy(update={"figures": {**result.figures, **own}})

    return replace(outcome, trials=tuple(replace(each, result=scored(each.result)) for each in outcome.trials))


def ranks(outcome: SearchOutcome) -> RankCorrelation | None:
    """How far the searched accuracies order the front as those from scratch do.

    Returns:
        None for fewer than `FEWEST` candidates, and where ties leave no order.
    """
    pairs = [(each.figures["accuracy"], each.figures[SCRATCH]) for each in outcome.front if SCRATCH in each.figures]
    searched, scratch = zip(*pairs, strict=True) if pairs else ((), ())
    if len(pairs) < FEWEST or len(set(searched)) < 2 or len(set(scratch)) < 2:
        return None
    found = rank_correlation(searched, scratch)
    return found if math.isfinite(found.low) else None
