"""Does the same kernel, measured again by other processes some minutes later, take as long in units of the reference?

Raw medians of one process here swing by a fifth with the clock, and by 3 to 6 % with the physical pages that a large
tensor is given. A kernel counts as repeated when both figures differ by 3 % at most, or by less than what a table calls
lost in any network (`Precision.least`, about a tenth of a microsecond).

Both measurements are tables in the cache's folder `repeatability`; what they hold already is not measured again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.kernel_pool import FORMATS, drawn_networks
from bitwright.hw_constraints.kernels import Kernel, known_rules
from bitwright.hw_constraints.table import KernelRow, KernelTable, TableKey
from bitwright.hw_constraints.table.bench import Bench as KernelBench
from bitwright.hw_constraints.table.measuring import Precision, measure_into
from bitwright.hw_constraints.table.reference import REFERENCE
from bitwright.hw_constraints.table.sampling import spread
from bitwright.hw_constraints.target import load_target

ROW = "kernel_repeatability"
RUNTIMES = ("onnxruntime", "openvino")
TARGET = "x86-vnni"
KERNELS = 24  # of each runtime and format
NETWORKS = 30
BATCH = 12
APART_SECONDS = 300.0
WITHIN = 0.03
PRECISION = Precision(half_width=0.02, most=18)
SEED = 20


def run(bench: Bench) -> list[Record]:
    """Measures everything, waits, measures everything again."""
    folder = bench.cache / "repeatability"
    first = {runtime: first_time(folder, runtime) for runtime in RUNTIMES}
    newest = max(datetime.fromisoformat(row.date).timestamp() for table in first.values() for row in table.rows)
    time.sleep(max(0.0, newest + APART_SECONDS - time.time()))
    second = {runtime: second_time(folder, runtime) for runtime in RUNTIMES}
    return [_record(runtime, first[runtime], second[runtime]) for runtime in RUNTIMES]


def first_time(folder: Path, runtime: str, *, seconds: float = float("inf")) -> KernelTable:
    """The chosen kernels; no batch begins after so many seconds."""
    file = folder / f"{runtime}-first.table"
    have = [row.kernel for row in KernelTable.load(file).rows] if file.exists() else []
    kernels = have if len(have) >= len(FORMATS) * KERNELS else _kernels(runtime)
    return _measured(file, runtime, kernels, seed=0, seconds=seconds)


def second_time(folder: Path, runtime: str, *, seconds: float = float("inf")) -> KernelTable:
    """The same kernels again."""
    kernels = [row.kernel for row in KernelTable.load(folder / f"{runtime}-first.table").rows]
    return _measured(folder / f"{runtime}-second.table", runtime, kernels, seed=1, seconds=seconds)


def _measured(file: Path, runtime: str, kernels: Sequence[Kernel], *, seed: int, seconds: float) -> KernelTable:
    with KernelTable.writing(file, TableKey.here(runtime, 1), REFERENCE.to_json()) as table:
        left = [kernel for kernel in kernels if kernel.key not in table]
        if left:
            with KernelBench(runtime, 1) as process:
                measure_into(table, process, _batches(left), seconds=seconds, precision=PRECISION, seed=1000 * seed)
    return KernelTable.load(file)


def _kernels(runtime: str) -> list[Kernel]:
    networks = drawn_networks(known_rules(runtime), load_target(TARGET), FORMATS, seed=SEED, count=NETWORKS)
    pool = list({kernel.key: kernel for network in networks for kernel in network.kernels}.values())
    return [
        kernel
        for number_format in FORMATS
        for kernel in spread([each for each in pool if each.format == number_format], KERNELS)
    ]


def _batches(kernels: Sequence[Kernel]) -> Iterator[Sequence[Kernel]]:
    return (kernels[at : at + BATCH] for at in range(0, len(kernels), BATCH))


def _record(runtime: str, first: KernelTable, second: KernelTable) -> Record:
    pairs = [(a, b) for a in first.measured if (b := second.get(a.kernel)) is not None and not b.rejected]
    apart = [abs(a.ratio - b.ratio) for a, b in pairs]
    size = [(abs(a.ratio) + abs(b.ratio)) / 2 for a, b in pairs]
    repeated = [gap <= max(WITHIN * mean, PRECISION.least) for gap, mean in zip(apart, size, strict=True)]
    relative = [gap / mean for gap, mean in zip(apart, size, strict=True)]
    table = [
        {
            "kernels": name,
            "count": str(len(values)),
            "median difference": f"{100 * median(values):.2f} %",
            "90th percentile": f"{100 * float(np.percentile(values, 90)):.2f} %",
            "within 3 %": f"{100 * float(np.mean([value <= WITHIN for value in values])):.0f} %",
        }
        for name, values in _groups(pairs, relative).items()
        if values
    ]
    return record(
        f"{ROW}.{runtime}",
        area="hw_constraints",
        value=100 * float(np.mean(repeated)),
        unit="% of kernels",
        n=len(pairs),
        reach=Reach("≥", 90.0),
        table=[*table, _figures(first, second, pairs)],
    )


def _groups(pairs: Sequence[tuple[KernelRow, KernelRow]], relative: Sequence[float]) -> dict[str, list[float]]:
    def of(keep: Sequence[bool]) -> list[float]:
        return [value for value, kept in zip(relative, keep, strict=True) if kept]

    lost = PRECISION.least / WITHIN  # below, the absolute limit is the wider one
    return {
        "all": list(relative),
        **{name: of([a.kernel.format == name for a, _ in pairs]) for name in FORMATS},
        "of more than 1.7 % of the reference": of([a.ratio > lost for a, _ in pairs]),
        "tensors beyond 1 MiB": of([a.kernel.bytes > 2**20 for a, _ in pairs]),
    }


def _figures(first: KernelTable, second: KernelTable, pairs: Sequence[tuple[KernelRow, KernelRow]]) -> dict[str, str]:
    minutes = [(datetime.fromisoformat(b.date) - datetime.fromisoformat(a.date)).total_seconds() / 60 for a, b in pairs]
    reference = second.reference_us / first.reference_us
    return {
        "kernels": f"the reference itself, in µs; {min(minutes):.0f} to {max(minutes):.0f} minutes apart",
        "count": "1",
        "median difference": f"{100 * abs(reference - 1):.2f} %",
        "90th percentile": "",
        "within 3 %": "",
    }
