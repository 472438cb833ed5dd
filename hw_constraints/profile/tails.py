"""Latency as it is met: the middle and the tail of single runs, alone and beside another busy process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from bitwright.hw_constraints.backends import Arrays
from bitwright.hw_constraints.measure.process import ask_worker
from bitwright.hw_constraints.measure.statistics import Ratio, paired_ratio
from bitwright.hw_constraints.profile.layers import FEWEST_SLICES, WORKER, worker_files

_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Quantile:
    """A quantile of single runs with its 95 % interval, microseconds; infinite where there are too few runs."""

    us: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Single runs under one condition.

    Attributes:
        p50: the middle.
        p99: what one run in a hundred exceeds.
        runs: how many were timed.
    """

    p50: Quantile
    p99: Quantile
    runs: int


@dataclass(frozen=True, kw_only=True)
class Tails:
    """Runs alone and beside a co-runner, in slices that took turns.

    Attributes:
        alone: with nothing of ours beside.
        beside: with the co-runner.
        co_runner: what it is.
        slowdown: of the middle, paired by slice.
        shares_processors: whether it had to run on the same processors, because there are no others.
    """

    alone: Latencies
    beside: Latencies
    co_runner: str
    slowdown: Ratio
    shares_processors: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record; an end of an interval that nothing bounds is None, which JSON can say."""
        plain: dict[str, Any] = _bounded(asdict(self))
        return plain


def measure_tails(
    path: Path, runtime: str, co_runner: str, *, threads: int = 1, seconds: float = 10.0, inputs: Arrays | None = None
) -> Tails:
    """Times single runs alone and beside another process.

    Args:
        path: an ONNX file.
        runtime: a backend's name.
        co_runner: `same`, the same network on other processors, or `memory`, a process that copies memory.
        threads: of the runtime.
        seconds: about so long, six turns at least.
        inputs: one batch; standard normal numbers when not given.

    Raises:
        InputError: a file, runtime, co-runner or input is not usable.
    """
    with worker_files(onnx.load(str(path)), inputs, str(path)) as files:
        request = {**files, "kind": "tails", "runtime": runtime, "name": str(path), "threads": threads}
        request |= {"seconds": seconds, "fewest_slices": FEWEST_SLICES, "co_runner": co_runner}
        answer = ask_worker(WORKER, request, threads=threads)
    return Tails(
        alone=_latencies(answer["alone"]),
        beside=_latencies(answer["beside"]),
        co_runner=answer["co_runner"],
        slowdown=paired_ratio(*([_middle(each) for each in answer[side]] for side in ("beside", "alone"))),
        shares_processors=answer["shares_processors"],
    )


def _bounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bounded(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _latencies(slices: Sequence[Sequence[float]]) -> Latencies:
    runs = sorted(sample for each in slices for sample in each)
    return Latencies(p50=quantile(runs, 0.5), p99=quantile(runs, 0.99), runs=len(runs))


def _middle(runs: Sequence[float]) -> float:
    return quantile(sorted(runs), 0.5).us


def quantile(ordered: Sequence[float], share: float) -> Quantile:
    """A quantile of ordered samples with its 95 % interval from the order statistics.

    The number of samples below the true quantile is binomial(n, share), so the samples at its 2.5 % and 97.5 % points
    bracket it, whatever the distribution (Hahn, Meeker: Statistical Intervals, section 5.2). Samples that follow each
    other are not independent, which makes the interval too narrow where a disturbance lasts.
    """
    from scipy.stats import binom

    n = len(ordered)
    tail = (1 - _CONFIDENCE) / 2
    low, high = int(binom.ppf(tail, n, share)), int(binom.ppf(1 - tail, n, share))
    at = min(n - 1, max(0, math.ceil(share * n) - 1))
    return Quantile(
        us=ordered[at],
        low=ordered[low - 1] if low >= 1 else -math.inf,
        high=ordered[high] if high < n else math.inf,
    )
