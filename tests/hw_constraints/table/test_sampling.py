"""Which kernels are measured next."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_tables import DATE, KEY, REFERENCE_RECORD, kernel, row

from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.hw_constraints.table import KernelRow, KernelTable
from bitwright.hw_constraints.table.forest import forest_uncertainty
from bitwright.hw_constraints.table.sampling import Plan, Uncertainty, batches, group_of, shape_vector, spread

POOL = [kernel(channels, number_format) for channels in range(1, 101) for number_format in ("float32", "int8")]


def by_channels(rows: Sequence[KernelRow]) -> Uncertainty:
    """The more channels, the less is known."""
    return lambda kernels: [float(each.inputs[0][1]) for each in kernels]


def test_a_table_begins_with_all_groups_in_turn_and_goes_on_where_least_is_known(tmp_path: Path) -> None:
    with KernelTable.writing(tmp_path / "table", KEY, REFERENCE_RECORD) as table:
        plan = Plan(start=10, batch=5, refit=2)
        chosen: list[Kernel] = []
        for batch in itertools.islice(batches(table, POOL, by_channels, plan), 6):
            assert len(batch) == 5
            chosen += batch
            table.add(KernelRow(kernel=each, ratio=1.0, low=0.9, high=1.1, date=DATE) for each in batch)
        assert len({each.key for each in chosen}) == 30
        start, later = chosen[:20], chosen[20:]
        assert [group_of(each) for each in start[:4]] == [group_of(each) for each in POOL[:2]] * 2
        channels = [each.inputs[0][1] for each in start]
        assert min(channels) == 1 and max(channels) == 100
        assert min(each.inputs[0][1] for each in later) > 60  # of the quarter that is known least


def test_a_table_that_was_interrupted_repeats_nothing(tmp_path: Path) -> None:
    plan, seen = Plan(start=3, batch=4, refit=1), []
    for _ in range(3):
        with KernelTable.writing(tmp_path / "table", KEY, REFERENCE_RECORD) as table:
            for batch in itertools.islice(batches(table, POOL[:40], by_channels, plan), 4):
                seen += batch
                table.add(KernelRow(kernel=each, date=DATE, rejected="no") for each in batch)
    assert len(seen) == len({each.key for each in seen}) == 40  # 3 x 4 x 4 were asked for; there are no more
    assert len(KernelTable.load(tmp_path / "table")) == 40


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4096), min_size=1, max_size=60, unique=True), st.integers(0, 70))
def test_spread_covers_what_it_is_given(channels: list[int], count: int) -> None:
    kernels = [kernel(each) for each in channels]
    chosen = spread(kernels, count)
    assert len(chosen) == len({each.key for each in chosen}) == min(count, len(kernels))
    if 2 <= count < len(kernels):
        # Within a factor of 2 of the best: no left-out kernel is farther from the chosen ones than two chosen ones
        # are from each other.
        scale = np.maximum(np.stack([shape_vector(each) for each in kernels]).std(axis=0), 1e-9)
        taken = np.stack([shape_vector(each) for each in chosen]) / scale
        left = np.stack([shape_vector(each) for each in kernels if each not in chosen]) / scale
        gaps = np.linalg.norm(taken[:, None] - taken[None], axis=2)[np.triu_indices(len(taken), 1)]
        reach = np.linalg.norm(left[:, None] - taken[None], axis=2).min(axis=1)
        assert reach.max() <= gaps.min() + 1e-9


def test_a_forest_is_less_sure_away_from_its_data() -> None:
    rows = [row(channels, ratio=channels**2 / 1000) for channels in range(8, 64)]
    uncertainty = forest_uncertainty(rows)
    inside = uncertainty([replace(kernel(channels)) for channels in (20, 33, 47)])
    other_format = uncertainty([kernel(channels) for channels in (5, 6, 7)])
    assert max(inside) < min(other_format) or np.mean(inside) < np.mean(other_format)
    assert forest_uncertainty([])([kernel(3), kernel(4)]) == [1.0, 1.0]
    alone = KernelRow(kernel=kernel(3), date=DATE, rejected="no")
    assert forest_uncertainty([alone])([kernel(3)]) == [1.0]


def test_uncertainty_falls_where_rows_are_added() -> None:
    rng = np.random.default_rng(0)

    def noisy(channels: int) -> KernelRow:
        return row(channels, ratio=channels**2 * float(rng.lognormal(0, 0.01)))

    sparse = [noisy(channels) for channels in (*range(1, 40), 900)]
    dense = [*sparse, *(noisy(channels) for channels in range(300, 340))]
    asked = [kernel(channels) for channels in (305, 315, 325)]
    before, after = forest_uncertainty(sparse)(asked), forest_uncertainty(dense)(asked)
    assert max(after) < min(before)
    assert before == pytest.approx(forest_uncertainty(sparse)(asked))
