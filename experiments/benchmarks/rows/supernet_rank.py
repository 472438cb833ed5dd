"""Do shared weights order networks as stand-alone training does? Ours beside once-for-all-style training.

Everything was chosen on `developed`: another space, other networks, other seeds; `scored` was scored once. Each
training is kept by itself, so that a run goes on where it was cut; `BITWRIGHT_SUPERNET_SECONDS` ends one early, and
`BITWRIGHT_SUPERNET_DEVELOP=1` shows the figures of `developed` instead of recording.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.rank_contest import OURS, SIDES, Contest
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.nas.space import Candidate
from bitwright.nas.supernet import RankCorrelation, SupernetSettings, rank_correlation
from bitwright.quant.errors import InputError

ROW = "supernet_rank"
ALONE = SupernetSettings(epochs=12, lr=1e-2)
SHARED = SupernetSettings(epochs=100, lr=1e-2, random=2, labels=1.0)
_TIMED = 20  # candidates


def developed(bench: Bench) -> Contest:
    """What settings were chosen on."""
    shared = replace(SHARED, seed=100)
    return Contest(
        widths=(2, 4, 6, 8),
        shared=shared,
        alone=ALONE,
        candidates=20,
        alike=14,
        seeds=(100, 101),
        folder=_folder(bench),
    )


def scored(bench: Bench) -> Contest:
    """What is recorded."""
    return Contest(
        widths=(2, 3, 5, 8), shared=SHARED, alone=ALONE, candidates=50, alike=30, seeds=(0, 1), folder=_folder(bench)
    )


def run(bench: Bench) -> list[Record]:
    """Every training that is not kept yet, then the figures.

    Raises:
        InputError: the time is up; what is done is kept.
    """
    develop = os.environ.get("BITWRIGHT_SUPERNET_DEVELOP") == "1"
    contest = developed(bench) if develop else scored(bench)
    until = time.monotonic() + float(os.environ.get("BITWRIGHT_SUPERNET_SECONDS", "inf"))
    for candidate in (*contest.anywhere, *contest.of_equal_cost):
        for seed in contest.seeds:
            if time.monotonic() > until:
                raise InputError(f"{ROW}: the time is up before ({candidate}) alone, seed {seed}; run it again")
            contest.alone_accuracy(candidate, seed)
    for side in SIDES:
        if time.monotonic() > until:
            raise InputError(f"{ROW}: the time is up before the shared weights of {side}; run it again")
        contest.inherited(side)
    found = _records(contest)
    if develop:
        raise InputError("\n".join(f"{each.row} {each.value:.3f} {each.spread} {each.table}" for each in found))
    return found


def _folder(bench: Bench) -> Path:
    return bench.cache / ROW


def _records(contest: Contest) -> list[Record]:
    groups = {"anywhere": (contest.anywhere, 0.7), "equal_macs": (contest.of_equal_cost, 0.5)}
    table, taus = [], {}
    for name, (candidates, _) in groups.items():
        alone = np.array([[contest.alone_accuracy(each, seed) for seed in contest.seeds] for each in candidates])
        for side in SIDES:
            taus[name, side] = _tau(contest, side, candidates, alone.mean(1).tolist())
            table.append(_line(name, side, taus[name, side]))
        first, second = alone.T[:2].tolist()
        table.append(_line(name, "the same networks, trained again", rank_correlation(first, second)))
        costs = [contest.macs(each) for each in candidates]
        table.append(_line(name, "MACs", rank_correlation(costs, alone.mean(1).tolist())))
        low, middle, high = np.quantile(alone.mean(1), [0.0, 0.5, 1.0])
        table.append({"networks": name, "by": f"alone: {low:.1f} … {middle:.1f} … {high:.1f} %"})
    records = []
    for (name, side), found in taus.items():
        records.append(
            record(
                f"{ROW}.{name}" + ("" if side == OURS else ".reference"),
                area="nas",
                value=found.tau,
                spread=(found.low, found.high),
                unit="Kendall tau",
                reach=Reach("≥", groups[name][1]) if side == OURS else None,
                n=found.n,
                table=table,
            )
        )
    milliseconds = _milliseconds(contest)
    records.append(
        record(f"{ROW}.inherited_cpu", area="nas", value=milliseconds, unit="ms a candidate", n=_TIMED, table=table)
    )
    return records


def _tau(contest: Contest, side: str, candidates: Sequence[Candidate], alone: Sequence[float]) -> RankCorrelation:
    accuracy = contest.inherited(side)
    return rank_correlation([accuracy(each) for each in candidates], alone)


def _line(group: str, by: str, found: RankCorrelation) -> dict[str, str]:
    return {
        "networks": group,
        "by": by,
        "Kendall tau": f"{found.tau:.3f}",
        "95 %": f"{found.low:.3f} … {found.high:.3f}",
        "n": str(found.n),
    }


def _milliseconds(contest: Contest) -> float:
    """CPU time of a candidate's score with shared weights: its network, its statistics, 497 pictures."""
    accuracy = contest.inherited(OURS)
    accuracy.task.score(accuracy.network(contest.anywhere[0]))  # opens the data
    began = time.process_time()
    for candidate in contest.anywhere[:_TIMED]:
        accuracy.task.score(accuracy.network(candidate))
    return 1e3 * (time.process_time() - began) / _TIMED
