"""Do 64 workers get through 64 times as many candidates as one?

Evaluations sleep for half a second. Workers are threads of Dask workers, 16 to a process at most, since 64 processes
do not fit beside each other on a small machine; scheduler and driver are processes of their own. The rate is counted
from the end of the first wave, when each worker has had one candidate, to the end of the last.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import bitwright.experiments.benchmarks.made_up_search as made_up  # the name under which workers find it
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.loopback_postgresql import free_port
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.nas.cluster import Cluster, remote_cluster
from bitwright.nas.search import search
from bitwright.nas.search_outcome import Told
from bitwright.nas.settings import SearchSettings

ROW = "search_scaling"
SECONDS = 0.5  # of an evaluation
SLOTS = (1, 8, 64)
_TRIALS_A_SLOT = 15
_THREADS_A_PROCESS = 16


def run(bench: Bench) -> list[Record]:
    """Each number of workers on a cluster of its own."""
    del bench  # it needs no data
    table, share = [], 0.0
    for slots in SLOTS:
        with tempfile.TemporaryDirectory() as folder, _cluster(slots) as workers:
            _rate(workers, Path(folder) / "first", slots, 2 * slots)  # workers load everything
            rate = _rate(workers, Path(folder) / "timed", slots, slots * _TRIALS_A_SLOT)
        share = rate * SECONDS / slots
        table.append({"workers": slots, "candidates a second": f"{rate:.1f}", "of linear": f"{share:.3f}"})
    return [
        record(
            f"{ROW}.at_{SLOTS[-1]}",
            area="nas",
            value=share,
            unit="× linear",
            n=SLOTS[-1] * _TRIALS_A_SLOT,
            reach=Reach("≥", 0.9),
            table=table,
        )
    ]


def _rate(workers: Cluster, folder: Path, slots: int, trials: int) -> float:
    """Candidates a second."""
    times: list[float] = []

    def note(told: Told) -> None:
        times.append(time.perf_counter())

    settings = SearchSettings(trials=trials, objectives=("accuracy", "macs"), sampler="random")
    search(made_up.Space(), made_up.made_up_workload(), settings, folder, workers=workers, on_told=note)
    return (len(times) - slots) / (times[-1] - times[slots - 1])


@contextmanager
def _cluster(slots: int) -> Iterator[Cluster]:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    processes, threads = -(-slots // _THREADS_A_PROCESS), min(slots, _THREADS_A_PROCESS)
    commands = [["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]]
    commands += [["worker", address, "--nthreads", str(threads), "--no-nanny", "--no-dashboard"]] * processes
    with ExitStack() as stack:
        for name, *arguments in commands:
            stack.enter_context(_program([sys.executable, "-m", f"distributed.cli.dask_{name}", *arguments]))
        score = functools.partial(made_up.evaluate, seconds=SECONDS)
        workers = stack.enter_context(remote_cluster(address, evaluate=score))
        workers.client.wait_for_workers(processes)
        yield workers


@contextmanager
def _program(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()
