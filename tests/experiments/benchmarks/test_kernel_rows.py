"""The rows on latency tables: what counts as repeated, and what a table's minutes are."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.rows import kernel_repeatability, kernel_table
from bitwright.hw_constraints.kernels.kernel import Family, Kernel
from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.table import Clocks, KernelRow, KernelTable, TableKey
from bitwright.hw_constraints.table.session import Session


def table(path: Path, ratios: dict[int, float], date: str = "2026-01-02T03:00:00+00:00") -> KernelTable:
    key = TableKey(
        device=this_machine(), clocks=Clocks(governor=None, max_mhz=None), runtime="r", version="1", threads=1
    )
    rows = [
        KernelRow(kernel=_kernel(channels), ratio=ratio, low=ratio * 0.99, high=ratio * 1.01, date=date)
        for channels, ratio in ratios.items()
    ]
    session = Session(
        started=date,
        seconds=90.0,
        kernels=len(rows),
        reference_us=200.0,
        spin_turns_per_us=1.0,
        load_before=0,
        load_after=0,
    )
    with KernelTable.writing(path, key, {}) as made:
        made.add(rows, sessions=[session])
    return KernelTable.load(path)


def _kernel(channels: int) -> Kernel:
    shape = (1, channels, 8, 8)
    return Kernel(
        family=Family.ACTIVATION,
        op="Relu",
        format="float32" if channels % 2 else "int8",
        inputs=(shape,),
        outputs=(shape,),
    )


def test_a_kernel_repeats_within_three_percent_or_a_tenth_of_a_microsecond(tmp_path: Path) -> None:
    first = table(tmp_path / "first", {1: 1.0, 2: 1.0, 3: 0.001, 4: 0.001})
    # 2 % and 5 % of a long one; 0.08 and 0.16 µs of a short one.
    second = table(tmp_path / "second", {1: 1.02, 2: 1.05, 3: 0.0014, 4: 0.0018}, "2026-01-02T03:07:00+00:00")
    found = kernel_repeatability._record("r", first, second)
    assert (found.value, found.n, found.holds) == (50.0, 4, False)
    lines = {line["kernels"]: line for line in found.table}
    assert lines["of more than 1.7 % of the reference"]["within 3 %"] == "50 %"
    assert lines["float32"]["count"] == lines["int8"]["count"] == "2"
    assert "the reference itself, in µs; 7 to 7 minutes apart" in lines


def test_minutes_are_those_of_all_sessions_and_a_query_is_timed(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for runtime in kernel_table.RUNTIMES:
        table(kernel_table.table_file(tmp_path, runtime), {1: 1.0, 2: 0.5})
    minutes, query = kernel_table.run(Bench(data_root=None, home=tmp_path, cache=tmp_path))
    assert (minutes.value, minutes.n, minutes.holds) == (pytest.approx(3.0), 4, True)
    assert 0 < query.value < 1 and query.unit == "ms"
    assert {line["runtime"] for line in minutes.table} == set(kernel_table.RUNTIMES)
