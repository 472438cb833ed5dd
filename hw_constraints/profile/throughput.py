"""Inferences a second: over batch sizes, and over streams that run at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.measure.process import ask_worker
from bitwright.hw_constraints.profile.layers import WORKER, worker_files
from bitwright.hw_constraints.profile.rebatch import rebatched
from bitwright.quant.errors import InputError

SLICES = 5


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """One batch size with one number of streams.

    Attributes:
        batch: samples in a run.
        streams: runs at once, each in a session and a thread of its own.
        per_second: samples a second, the median of the slices; None where it could not be measured.
        low: the slowest slice.
        high: the fastest slice.
        latency_us: of a run meanwhile, the median.
        reason: why it could not be measured.
    """

    batch: int
    streams: int
    per_second: float | None = None
    low: float | None = None
    high: float | None = None
    latency_us: float | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self)


def measure_throughput(
    path: Path,
    runtime: str,
    *,
    batches: Sequence[int] = (1,),
    streams: Sequence[int] = (1,),
    threads: int = 1,
    seconds: float = 1.0,
) -> tuple[Throughput, ...]:
    """Measures each batch size with each number of streams.

    Args:
        path: an ONNX file; its batch size is changed, and kept from measurement when its results then differ.
        runtime: a backend's name.
        batches: samples in a run.
        streams: runs at once.
        threads: of the runtime, for each stream.
        seconds: of each of the `SLICES`.

    Raises:
        InputError: the file or runtime is not usable, or a number is not positive.
    """
    if min(*batches, *streams) < 1:
        raise InputError(f"batches {list(batches)} and streams {list(streams)}: at least 1 is needed")
    model = onnx.load(str(path))
    found = []
    for batch in batches:
        try:
            changed = rebatched(model, batch, get_backend(runtime), str(path), threads=threads)
        except InputError as error:
            found += [Throughput(batch=batch, streams=each, reason=str(error)) for each in streams]
            continue
        found += [_measure(changed, batch, each, runtime, str(path), threads, seconds) for each in streams]
    return tuple(found)


def _measure(
    model: onnx.ModelProto, batch: int, streams: int, runtime: str, name: str, threads: int, seconds: float
) -> Throughput:
    with worker_files(model, None, name) as files:
        request = {**files, "kind": "throughput", "runtime": runtime, "name": name, "threads": threads}
        request |= {"streams": streams, "seconds": seconds, "fewest_slices": SLICES}
        answer = ask_worker(WORKER, request, threads=threads)
    rates = [batch * each for each in answer["runs_per_second"]]
    return Throughput(
        batch=batch,
        streams=streams,
        per_second=median(rates),
        low=min(rates),
        high=max(rates),
        latency_us=median(answer["latency_us"]),
    )
