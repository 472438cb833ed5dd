"""Are the tabular spaces that samplers are scored on true to life? A sample of each, trained and measured.

Of each table of row `search_hypervolume` a dozen networks, at equal steps of rank in inherited accuracy, are trained by
themselves (as in row `supernet_rank`, one seed); as many, at equal steps of rank in latency, are exported to int8 and
timed in ONNX Runtime, beside the reference kernel that the table's kernels were timed beside. Samplers are compared on
the tables whatever comes out here: it says how far a table stands for the networks in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Record, record
from bitwright.experiments.benchmarks.rows.supernet_rank import ALONE
from bitwright.experiments.benchmarks.tabular_networks import SCORED, Networks, latency_table
from bitwright.experiments.benchmarks.tabular_samples import Sample, spread_over
from bitwright.experiments.benchmarks.tabular_space import Table
from bitwright.hw_constraints.table import KernelTable
from bitwright.nas.result import Result
from bitwright.nas.supernet import RankCorrelation, rank_correlation

ROW = "tabular_samples"
NETWORKS = 12
_SEED = 0


def run(bench: Bench) -> list[Record]:
    """Trains and measures what is not kept yet, table by table."""
    records = []
    for networks in SCORED:
        table, sample = table_of(networks, bench), sample_of(networks, bench)
        records += [_accuracies(table, sample), *_latencies(table, sample, bench)]
    return records


def table_of(networks: Networks, bench: Bench) -> Table:
    """The table that row `search_hypervolume` scores samplers on."""
    return networks.table(latency_table(bench.cache), bench.cache / "tabular")


def sample_of(networks: Networks, bench: Bench) -> Sample:
    """What its networks are for real."""
    return Sample(networks=networks, alone=ALONE, folder=bench.cache / ROW)


def _accuracies(table: Table, sample: Sample) -> Record:
    asked = spread_over(table, "accuracy", NETWORKS)
    alone = [sample.alone_accuracy(each, _SEED) for each in asked]
    inherited = [each.figures["accuracy"] for each in asked]
    lines = [
        {"network": _spelled(each), "inherited %": shared, "alone %": own}
        for each, shared, own in zip(asked, inherited, alone, strict=True)
    ]
    return _tau(f"{table.name}.accuracy", rank_correlation(inherited, alone), "inherited against alone", lines)


def _latencies(table: Table, sample: Sample, bench: Bench) -> list[Record]:
    asked = spread_over(table, "predicted_ms", NETWORKS)
    reference_us = KernelTable.load(latency_table(bench.cache)).reference_us
    measured = [ratio * reference_us for ratio in sample.ratios(asked)]
    summed = [1e3 * each.figures["predicted_ms"] for each in asked]
    errors = 100 * (np.array(summed) / np.array(measured) - 1)
    lines = [
        {"network": _spelled(each), "summed µs": by_table, "measured µs": us, "error %": float(error)}
        for each, by_table, us, error in zip(asked, summed, measured, errors, strict=True)
    ]
    error = record(
        f"{ROW}.{table.name}.latency_error", area="search", value=float(np.median(np.abs(errors))),
        unit="% median error of the summed latency", n=NETWORKS, table=lines,
    )  # fmt: skip
    return [_tau(f"{table.name}.latency", rank_correlation(summed, measured), "summed against measured", lines), error]


def _tau(name: str, found: RankCorrelation, what: str, lines: list[dict[str, Any]]) -> Record:
    return record(
        f"{ROW}.{name}", area="search", value=found.tau, spread=(found.low, found.high),
        unit=f"Kendall tau, {what}", n=found.n, table=lines,
    )  # fmt: skip


def _spelled(result: Result) -> str:
    return " ".join(f"{name}={value}" for name, value in result.values.items())
