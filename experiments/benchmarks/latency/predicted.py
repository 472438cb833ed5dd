"""Each drawn network's prediction beside its measured latency."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from bitwright.experiments.benchmarks import places
from bitwright.experiments.benchmarks.latency.draw import drawn, table_hashes
from bitwright.experiments.benchmarks.latency.measured import LONGEST_MS, MeasuredLatency, latencies
from bitwright.experiments.benchmarks.latency.network_files import FORMATS, network_files
from bitwright.experiments.benchmarks.latency.pool import Variant
from bitwright.hw_constraints.kernels import Split
from bitwright.hw_constraints.predict.from_table import predictor_of
from bitwright.hw_constraints.predict.prediction import NetworkPrediction
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.hw_constraints.table import KernelTable
from bitwright.quant.errors import InputError

RUNTIMES = ("onnxruntime", "openvino")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One network in one format on one runtime.

    Attributes:
        measured: its latency.
        predicted: from the table.
        split: its kernels.
        us: measured, at the table's clock.
        seconds: how long predicting took.
    """

    measured: MeasuredLatency
    predicted: NetworkPrediction
    split: Split
    us: float
    seconds: float

    @property
    def log_error(self) -> float:
        """Of log latency; positive when predicted too long."""
        return math.log(self.predicted.us / self.us)

    @property
    def covered(self) -> bool:
        """Whether the interval contains the measured latency."""
        return self.predicted.low <= self.us <= self.predicted.high


def table_file(runtime: str) -> Path:
    """The table whose hash was committed."""
    return places.cache() / "tables" / f"fourth-{runtime}-1t.table"


def benchmark_table(runtime: str) -> KernelTable:
    """A runtime's table.

    Raises:
        InputError: it is not the one whose hash was committed before the networks were drawn.
    """
    table = KernelTable.load(table_file(runtime))
    if table.content_hash != table_hashes()[runtime]:
        raise InputError(f"{table.path}: is not the table whose hash was committed; draw and measure networks anew")
    return table


def predictor(runtime: str) -> LatencyPredictor:
    """Fitted to a runtime's table."""
    return predictor_of(benchmark_table(runtime))


def pairs(runtime: str, by: LatencyPredictor, variants: Sequence[Variant] | None = None) -> Iterator[Pair]:
    """All drawn networks that were measured; those over a quarter of a second are left out."""
    known = latencies(runtime)
    reference_us = benchmark_table(runtime).reference_us
    for variant in drawn() if variants is None else variants:
        for number_format in FORMATS:
            measured = known.get((variant.name, number_format))
            if measured is None or measured.rejected or measured.us(reference_us) > 1e3 * LONGEST_MS:
                continue
            network = by.split(network_files(variant).files[number_format])
            start = time.perf_counter()
            predicted = by.network(network)
            seconds = time.perf_counter() - start
            us = measured.us(reference_us)
            yield Pair(measured=measured, predicted=predicted, split=network, us=us, seconds=seconds)


def tau_within_bands(found: Sequence[tuple[float, float]], factor: float = 2.0) -> float:
    """Kendall's τ over those pairs of networks whose measured latencies are within a factor of each other.

    Args:
        found: measured and predicted latency of each network.
        factor: how far two may be apart; networks further apart are easily told from each other.
    """
    signs = [
        np.sign(left[0] - right[0]) * np.sign(left[1] - right[1])
        for left, right in combinations(found, 2)
        if 1 / factor <= left[0] / right[0] <= factor
    ]
    return float(np.mean(signs)) if signs else math.nan
