"""Accuracy after equal epochs of quantization-aware training, ours beside Brevitas, torchao and ModelOpt.

Three networks, three schemes, three seeds; every side tries the same learning rates on validation samples. Each
training is kept by itself, so that a run goes on where it was cut; `BITWRIGHT_QAT_SECONDS` ends one early,
`BITWRIGHT_QAT_JOBS` runs several side by side.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import OURS, PEERS
from bitwright.experiments.benchmarks.qat_contest import RATES, SCHEMES, SIDES, SUBJECTS, TUNED, Contest
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.quant.errors import InputError

ROW = "qat_accuracy"
SEEDS = (0, 1, 2)
# Points of accuracy below the float network that four bits may cost on the small networks.
_FOUR_BITS = 1.0


def run(bench: Bench) -> list[Record]:
    """Every training that is not kept yet, then the figures."""
    until = time.monotonic() + float(os.environ.get("BITWRIGHT_QAT_SECONDS", "inf"))
    versions = {name: peer.package.partition("==")[2] for name, peer in PEERS.items() if name in SIDES}
    contests = [Contest(bench, subject) for subject in SUBJECTS]
    asked = [(contest, side) for contest in contests for side in SIDES]
    _at_once(until, [(contest.score, (side, TUNED, lr, 0, "validation")) for contest, side in asked for lr in RATES])
    scored = [(contest, scheme, side, seed) for contest, side in asked for scheme in SCHEMES for seed in SEEDS]
    _at_once(until, [(contest.test, (side, scheme, seed)) for contest, scheme, side, seed in scored])
    records: list[Record] = []
    for contest in contests:
        for scheme in SCHEMES:
            scores = {side: [contest.test(side, scheme, seed) for seed in SEEDS] for side in SIDES}
            records += _records(contest, scheme, scores, versions)
    return records


def _at_once(until: float, trainings: list[tuple[Callable[..., float], tuple[Any, ...]]]) -> None:
    """Runs trainings side by side, one thread each.

    Raises:
        InputError: the time is up; what is done is kept.
    """

    def train(task: tuple[Callable[..., float], tuple[Any, ...]]) -> None:
        function, arguments = task
        if time.monotonic() > until:
            raise InputError(f"{ROW}: the time is up before {arguments}; run it again")
        function(*arguments)

    with ThreadPoolExecutor(int(os.environ.get("BITWRIGHT_QAT_JOBS", "1"))) as pool:
        list(pool.map(train, trainings))


def _records(
    contest: Contest, scheme: str, scores: dict[str, list[float]], versions: dict[str, str]
) -> Iterator[Record]:
    """Ours against the best other and against float, paired by seed."""
    ours, reference = np.array(scores[OURS]), contest.float_score()
    best = max((side for side in SIDES if side != OURS), key=lambda side: float(np.mean(scores[side])))
    name = f"{ROW}.{contest.subject.name.split()[0]}.{scheme}"
    common: dict[str, Any] = {
        "area": "qat",
        "unit": "points",
        "n": len(SEEDS),
        "peers": versions,
        "table": _table(contest, scheme, scores, reference),
    }
    gain = ours - np.array(scores[best])
    yield record(f"{name}.over_best", value=float(gain.mean()), spread=_interval(gain), reach=Reach("≥", 0.0), **common)
    drop = reference - ours
    reach = {"W8A8": Reach("≤", 0.0, "low"), "W4A4": Reach("≤", _FOUR_BITS)}.get(scheme)
    yield record(f"{name}.drop", value=float(drop.mean()), spread=_interval(drop), reach=reach, **common)


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Of the mean over seeds, by Student's t."""
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1)) / len(values) ** 0.5
    return float(values.mean()) - half, float(values.mean()) + half


def _table(contest: Contest, scheme: str, scores: dict[str, list[float]], reference: float) -> list[dict[str, str]]:
    lines = [{"who": f"float, {contest.subject.name}", "score %": f"{reference:.2f}"}]
    for side, found in scores.items():
        lines.append(
            {
                "who": f"{side} {scheme}",
                "score %": f"{np.mean(found):.2f}",
                "seeds %": ", ".join(f"{score:.2f}" for score in found),
                "rate": f"{contest.rate(side):g}",
            }
        )
    return lines
