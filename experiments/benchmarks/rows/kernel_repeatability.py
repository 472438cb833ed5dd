"""Does the same kernel, measured again by another process some minutes later, take as long in units of the reference?

Raw medians of one process here swing by a fifth with the clock, and by 3 to 6 % with the physical pages that a large
tensor is given. A kernel counts as repeated when both figures differ by 3 % at most, or by less than what a table calls
lost in any network (`Precision.least`, about a tenth of a microsecond).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.kernel_pool import FORMATS, drawn_networks
from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.hw_constraints.table import KernelRow
from bitwright.hw_constraints.table.bench import Bench as KernelBench
from bitwright.hw_constraints.table.measuring import Precision, measure_batch
from bitwright.hw_constraints.table.placement import Effort
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
    chosen = {runtime: _kernels(runtime) for runtime in RUNTIMES}
    start = time.monotonic()
    first = {runtime: _measured(runtime, kernels, seed=0) for runtime, kernels in chosen.items()}
    time.sleep(max(0.0, APART_SECONDS - (time.monotonic() - start)))
    second = {runtime: _measured(runtime, kernels, seed=1) for runtime, kernels in chosen.items()}
    return [_record(runtime, first[runtime], second[runtime]) for runtime in RUNTIMES]


def _kernels(runtime: str) -> list[Kernel]:
    networks = drawn_networks(runtime, load_target(TARGET), FORMATS, seed=SEED, count=NETWORKS)
    pool = list({kernel.key: kernel for network in networks for kernel in network.kernels}.values())
    return [
        kernel
        for number_format in FORMATS
        for kernel in spread([each for each in pool if each.format == number_format], KERNELS)
    ]


def _measured(runtime: str, kernels: Sequence[Kernel], seed: int) -> list[KernelRow]:
    rows: list[KernelRow] = []
    with KernelBench(runtime, 1) as process:
        for at in range(0, len(kernels), BATCH):
            batch = kernels[at : at + BATCH]
            measured, _ = measure_batch(process, batch, precision=PRECISION, effort=Effort(), seed=1000 * seed + at)
            rows += [row for row in measured if isinstance(row, KernelRow)]
    return rows


def _record(runtime: str, first: Sequence[KernelRow], second: Sequence[KernelRow]) -> Record:
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if not a.rejected and not b.rejected]
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
        table=table,
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
