"""The process behind a profile: pinned to its processors, with an allocator that keeps memory.

One request (JSON) asks for one of `KINDS`; the answer holds plain figures, which `layers`, `tails` and `throughput`
turn into statements.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from bitwright.hw_constraints.backends import Arrays, Session, get_backend
from bitwright.hw_constraints.machine import usable_cpus
from bitwright.hw_constraints.measure.conditions import Clock, pinned
from bitwright.hw_constraints.measure.process import serve
from bitwright.hw_constraints.measure.rounds import was_disturbed
from bitwright.hw_constraints.profile.co_runner import co_runner
from bitwright.hw_constraints.profile.loading import loaded
from bitwright.hw_constraints.profile.profiler_cost import profiler_us

_WARM_UP = 5
_SLICE_SECONDS = 0.25  # of undisturbed runs in each slice: long against a scheduler's time slice
_COPIED_BYTES = 128 * 2**20
_FEWEST_RUNS, _MOST_PROFILED = 5, 50


def layers(request: dict[str, Any]) -> dict[str, Any]:
    """Kernels under the profiler and runs without it, in turn, so that what slows the machine slows both.

    Returns:
        `wall_us`: one median a slice; `kernels`: microseconds by name, one a slice; `facts`: of each kernel;
        `executed`: the graph that ran; `settings`; `copy_gb_s`;
        `profiler_us`.
    """
    with pinned(request["threads"]):
        added_us = profiler_us(get_backend(request["runtime"]), threads=request["threads"])
        session, batch = _loaded(request)
        walls: list[float] = []
        slices: list[dict[str, float]] = []
        facts: dict[str, dict[str, str]] = {}
        stop_at = time.perf_counter() + request["seconds"]
        while len(walls) < request["fewest_slices"] or time.perf_counter() < stop_at:
            samples = _undisturbed(session, batch, _SLICE_SECONDS, request["threads"])
            walls.append(median(samples))
            slices.append({})
            for kernel in session.profile(batch, min(len(samples), _MOST_PROFILED)):
                slices[-1][kernel.name] = slices[-1].get(kernel.name, 0.0) + kernel.time_us
                facts[kernel.name] = {"op": kernel.op, "provider": kernel.provider, "precision": kernel.precision}
        executed = session.executed_graph()
    return {
        "wall_us": walls,
        "kernels": {name: [each.get(name, 0.0) for each in slices] for name in facts},
        "facts": facts,
        "executed": [
            {"name": n.name, "op": n.op, "inputs": n.inputs, "outputs": n.outputs, "originals": n.originals}
            for n in executed
        ],
        "settings": dict(session.settings),
        "copy_gb_s": copy_gb_s(),
        "profiler_us": added_us,
    }


def tails(request: dict[str, Any]) -> dict[str, Any]:
    """Latencies alone and beside a co-runner, in slices that take turns; the co-runner is stopped in between.

    Returns:
        `alone` and `beside`: microseconds, one list a slice; `co_runner`: what ran beside, and on which processors.
    """
    usable = usable_cpus()
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    with pinned(request["threads"]) as own:
        others = tuple(cpu for cpu in usable if cpu not in own)
        session, batch = _loaded(request)
        with co_runner(request, others or own) as other:
            stop_at = time.perf_counter() + request["seconds"]
            while len(alone) < request["fewest_slices"] or time.perf_counter() < stop_at:
                alone.append(_timed(session, batch, _SLICE_SECONDS))
                with other.running():
                    beside.append(_timed(session, batch, _SLICE_SECONDS))
    return {"alone": alone, "beside": beside, "co_runner": other.description, "shares_processors": not others}


def throughput(request: dict[str, Any]) -> dict[str, Any]:
    """Inferences a second of concurrent streams, each a thread with a session of its own.

    Returns:
        `runs_per_second`: one a slice; `latency_us`: the median of a run meanwhile.
    """
    streams, seconds = request["streams"], request["seconds"]
    loaded = [_loaded(request) for _ in range(streams)]
    rates, latencies = [], []
    for _ in range(request["fewest_slices"]):
        found = [list[float]() for _ in range(streams)]
        start = threading.Barrier(streams + 1)

        def stream(index: int, found: list[list[float]] = found, start: threading.Barrier = start) -> None:
            start.wait()
            found[index] = _timed(*loaded[index], seconds)

        threads = [threading.Thread(target=stream, args=(index,)) for index in range(streams)]
        for thread in threads:
            thread.start()
        start.wait()
        began = time.perf_counter()
        for thread in threads:
            thread.join()
        rates.append(sum(map(len, found)) / (time.perf_counter() - began))
        latencies.append(median(sample for each in found for sample in each))
    return {"runs_per_second": rates, "latency_us": latencies}


def copy_gb_s() -> float:
    """Bytes read and written by a plain copy of arrays that no cache holds, GB/s; the best of a few."""
    source, target = (np.ones(_COPIED_BYTES // 8) for _ in range(2))
    times = []
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - started)
    return 2 * _COPIED_BYTES / min(times) / 1e9


def _loaded(request: dict[str, Any]) -> tuple[Session, Arrays]:
    """The session and a batch, warmed up."""
    session, batch = loaded(request, threads=request["threads"])
    for _ in range(_WARM_UP):
        session.run(batch)
    return session, batch


def _timed(session: Session, batch: Arrays, seconds: float) -> list[float]:
    """Microseconds of each run, for so long, a few at least."""
    samples: list[float] = []
    stop_at = time.perf_counter() + seconds
    now = time.perf_counter()
    while now < stop_at or len(samples) < _FEWEST_RUNS:
        started = now
        session.run(batch)
        now = time.perf_counter()
        samples.append((now - started) * 1e6)
    return samples


def _undisturbed(session: Session, batch: Arrays, seconds: float, threads: int) -> list[float]:
    """Microseconds of the runs in which no other process was served in between; of all where there is no such run."""
    clock, samples, calm = Clock(), list[float](), list[float]()
    now = clock.now()
    stop_at = now.wall_s + seconds
    while now.wall_s < stop_at or len(samples) < _FEWEST_RUNS:
        started = now
        session.run(batch)
        now = clock.now()
        samples.append((now.wall_s - started.wall_s) * 1e6)
        if not was_disturbed(started, now, threads):
            calm.append(samples[-1])
    return calm or samples


KINDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "layers": layers,
    "tails": tails,
    "throughput": throughput,
}


if __name__ == "__main__":
    sys.exit(serve(lambda request: KINDS[request["kind"]](request)))
