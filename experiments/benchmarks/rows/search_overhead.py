"""What a trial costs that takes no time itself: sampler, study, files, and the way through the cluster and back.

One worker of a local cluster, and the driver's own process beside it; random candidates, since what a sampler thinks
for is a row of its own.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import bitwright.experiments.benchmarks.made_up_search as made_up  # the name under which workers find it
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.nas.cluster import local_cluster
from bitwright.nas.search import search
from bitwright.nas.search_outcome import Told
from bitwright.nas.settings import SearchSettings
from bitwright.nas.workers import InProcess, Workers

ROW = "search_overhead"
TRIALS = 400
_FIRST = 50  # trials in which everything is loaded


def run(bench: Bench) -> list[Record]:
    """Both ways in turns."""
    del bench  # it needs no data
    with tempfile.TemporaryDirectory() as folder:
        alone = _per_trial_ms(InProcess(made_up.evaluate), Path(folder) / "alone")
        with local_cluster(1, evaluate=made_up.evaluate) as workers:
            cluster = _per_trial_ms(workers, Path(folder) / "cluster")
    table = [
        {"evaluated by": "a worker of a local cluster", "ms a trial": f"{cluster:.1f}"},
        {"evaluated by": "the driver's own process", "ms a trial": f"{alone:.1f}"},
    ]
    return [
        record(
            f"{ROW}.cluster",
            area="nas",
            value=cluster,
            unit="ms a trial",
            n=TRIALS - _FIRST,
            reach=Reach("≤", 30.0),
            table=table,
        )
    ]


def _per_trial_ms(workers: Workers, folder: Path) -> float:
    times: list[float] = []

    def note(told: Told) -> None:
        times.append(time.perf_counter())

    settings = SearchSettings(trials=TRIALS, objectives=("accuracy", "macs"), sampler="random")
    search(made_up.Space(), made_up.made_up_workload(), settings, folder, workers=workers, on_told=note)
    return (times[-1] - times[_FIRST]) / (len(times) - 1 - _FIRST) * 1e3
