"""Which rows are looked at again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_tables import DATE, KEY, REFERENCE_RECORD, kernel, row

from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.hw_constraints.table import KernelRow, KernelTable
from bitwright.hw_constraints.table.measuring import Precision, measure_into
from bitwright.hw_constraints.table.placement import PROCESSOR, Effort
from bitwright.hw_constraints.table.sampling import Belief, Floats
from bitwright.hw_constraints.table.second_look import suspects

MOST = 6


def by_neighbours(rows: Sequence[KernelRow]) -> Belief:
    """The median of what the five nearest in channels take, sure within a tenth."""
    channels = np.array([each.kernel.inputs[0][1] for each in rows])
    logs = np.log([each.ratio for each in rows])

    def belief(kernels: Sequence[Kernel]) -> tuple[Floats, Floats]:
        near = [np.argsort(abs(channels - each.inputs[0][1]))[:5] for each in kernels]
        return np.array([np.median(logs[each]) for each in near]), np.full(len(kernels), 0.1)

    return belief


def test_rows_unlike_all_others_are_suspects_the_most_unlikely_first() -> None:
    rows = [row(channels, ratio=2.0 * (3 if channels == 40 else 0.25 if channels == 57 else 1)) for channels in
            range(8, 80)]  # fmt: skip
    assert suspects(rows, by_neighbours, most=MOST) == [kernel(57), kernel(40)]


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ({"ratio": 6.0, "placements": MOST + 1}, "it had its second look"),
        ({"ratio": 6.0, "half_width": 5.0}, "its own interval says that it may be so"),
        ({"ratio": 0.001}, "it is lost in any network"),
        ({"ratio": 2.5}, "a model may be off by so much"),
    ],
)
def test_a_row_is_left_alone_when(odd: dict[str, Any], why: str) -> None:
    placements = odd.pop("placements", MOST)
    changed = row(40, **odd)
    changed = KernelRow(**{**vars(changed), "placements": placements})
    rows = [changed if channels == 40 else row(channels, ratio=2.0) for channels in range(8, 80)]
    assert suspects(rows, by_neighbours, most=MOST) == [], why


def test_few_rows_and_rare_kinds_raise_no_suspicion() -> None:
    rows = [row(channels, ratio=6.0 if channels == 8 else 2.0) for channels in range(8, 37)]
    assert suspects(rows, by_neighbours, most=MOST) == []
    alone = KernelRow(**{**vars(row(40, ratio=6.0)), "kernel": kernel(40, "int8")})
    assert suspects([*(row(channels, ratio=2.0) for channels in range(8, 79)), alone], by_neighbours, most=MOST) == []


class Clockwork:
    """Measures as it is told, and remembers what it was asked for."""

    def __init__(self, ratio: float) -> None:
        self.ratio, self.asked = ratio, list[tuple[int, int, int]]()

    def measure(self, jobs: Sequence[Any], *, placements: int, effort: Effort, seed: int) -> list[dict[str, Any]]:
        self.asked.append((len(jobs), placements, seed))
        seen = {"ratio": self.ratio, "reference_us": 240.0, "rounds": 8, "disturbed": 0, "basis": PROCESSOR}
        return [{"placements": [seen] * placements} for _ in jobs]


def test_a_second_look_is_longer_and_replaces_the_first_whatever_it_shows(tmp_path: Path) -> None:
    precision = Precision(half_width=0.05, placements=3, most=MOST)
    with KernelTable.writing(tmp_path / "t.table", KEY, REFERENCE_RECORD) as table:
        table.add([row(40, ratio=6.0), row(41)])
        bench = Clockwork(2.0)
        batches = iter([[kernel(40)], [kernel(50)]])
        measure_into(table, bench, batches, seconds=60, precision=precision)  # type: ignore[arg-type]
        (again, new) = (table.get(kernel(channels)) for channels in (40, 50))
    assert again is not None and new is not None and DATE not in (again.date, new.date)
    assert again.ratio == new.ratio == 2.0
    assert again.placements > MOST >= new.placements
    assert not math.isnan(again.low) and len(table) == 3
    seeds = [seed for *_, seed in bench.asked]
    assert len(set(seeds)) == len(seeds)
