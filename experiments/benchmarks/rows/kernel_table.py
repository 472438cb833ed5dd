"""How long do the tables take that whole networks are predicted from, and how long a query?

The tables of both runtimes and both formats, one thread, are what `bitwright measure kernels` wrote into the cache's
folder `tables`; one that is missing is measured first. Minutes are those of measuring, as the tables' sessions say.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.console import Console
from bitwright.experiments.kernel_pool import FORMATS
from bitwright.experiments.kernel_table import measure_kernels, summary, target_and_runtime
from bitwright.hw_constraints.table import KernelTable

ROW = "kernel_table"
RUNTIMES = ("onnxruntime", "openvino")
MINUTES = 25.0  # of each runtime
QUERIES = 1000


def run(bench: Bench) -> list[Record]:
    """Counts minutes, and times queries."""
    tables = {runtime: _table(bench, runtime) for runtime in RUNTIMES}
    minutes = sum(each.seconds for table in tables.values() for each in table.sessions) / 60
    lines = [
        {"runtime": runtime, "kernels": name, **{key: _text(value) for key, value in figures.items()}}
        for runtime, table in tables.items()
        for name, figures in summary(table)["groups"].items()
    ]
    kernels = sum(len(table.measured) for table in tables.values())
    query_ms, queries = _query_ms(tables["onnxruntime"])
    return [
        record(
            f"{ROW}.minutes",
            area="hw_constraints",
            value=minutes,
            unit="minutes",
            n=kernels,
            reach=Reach("≤", 60.0),
            table=lines,
        ),
        record(f"{ROW}.query", area="hw_constraints", value=query_ms, unit="ms", n=queries, reach=Reach("≤", 1.0)),
    ]


def table_file(cache: Path, runtime: str, threads: int = 1) -> Path:
    """Where a table lies in the benchmarks' cache."""
    return cache / "tables" / f"{runtime}-{threads}t.table"


def _table(bench: Bench, runtime: str) -> KernelTable:
    file = table_file(bench.cache, runtime)
    if file.exists():
        return KernelTable.load(file)
    return measure_kernels(
        file,
        *target_and_runtime(None, runtime),
        threads=1,
        minutes=MINUTES,
        families=(),
        formats=FORMATS,
        half_width=0.05,
        seed=0,
        console=Console(),
    )


def _query_ms(table: KernelTable) -> tuple[float, int]:
    kernels = [row.kernel for row in table.measured][:QUERIES]
    took = []
    for kernel in kernels:
        start = time.perf_counter()
        table.latency_us(kernel)
        took.append(time.perf_counter() - start)
    return 1e3 * median(took), len(took)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
