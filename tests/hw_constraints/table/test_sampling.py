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

from bitwright.hw_constraints.kernels.kernel import Family, Kernel
from bitwright.hw_constraints.table import KernelRow, KernelTable
from bitwright.hw_constraints.table.forest import forest_belief
from bitwright.hw_constraints.table.sampling import (
    Belief,
    Floats,
    Plan,
    batches,
    doubt_by_kernel,
    group_of,
    shape_vector,
    spread,
)

NETWORKS = [[kernel(channels, "float32"), kernel(channels, "int8")] for channels in range(3, 103)]


def by_channels(rows: Sequence[KernelRow]) -> Belief:
    """The more channels, the less is known; all take equally long."""
    return lambda kernels: (np.zeros(len(kernels)), np.array([float(each.inputs[0][1]) for each in kernels]))


def test_a_table_begins_with_all_groups_in_turn_and_goes_on_where_least_is_known(tmp_path: Path) -> None:
    with KernelTable.writing(tmp_path / "table", KEY, REFERENCE_RECORD) as table:
        plan = Plan(start=10, batch=5, refit=2)
        chosen: list[Kernel] = []
        for batch in itertools.islice(batches(table, NETWORKS, by_channels, plan), 6):
            assert len(batch) == 5
            chosen += batch
            table.add(KernelRow(kernel=each, ratio=1.0, low=0.9, high=1.1, date=DATE) for each in batch)
        assert len({each.key for each in chosen}) == 30
        start, later = chosen[:20], chosen[20:]
        assert [group_of(each) for each in start[:4]] == [group_of(each) for each in NETWORKS[0]] * 2
        channels = [each.inputs[0][1] for each in start]
        assert min(channels) == 3 and max(channels) == 102
        assert min(each.inputs[0][1] for each in later) > 70  # of the three times as many that are known least


def test_a_table_that_was_interrupted_repeats_nothing(tmp_path: Path) -> None:
    plan, seen = Plan(start=3, batch=4, refit=1), []
    for _ in range(3):
        with KernelTable.writing(tmp_path / "table", KEY, REFERENCE_RECORD) as table:
            for batch in itertools.islice(batches(table, NETWORKS[:20], by_channels, plan), 4):
                seen += batch
                table.add(KernelRow(kernel=each, date=DATE, rejected="no") for each in batch)
    assert len(seen) == len({each.key for each in seen}) == 40  # 3 x 4 x 4 were asked for; there are no more
    assert len(KernelTable.load(tmp_path / "table")) == 40


def test_groups_tell_apart_what_takes_a_runtime_off_its_usual_path() -> None:
    ordinary = kernel(64)
    for changes, trait in (
        ({}, "of few positions"),
        ({"outputs": ((1, 64, 9, 9),)}, "ordinary"),
        ({"outputs": ((1, 64, 9, 9),), "inputs": ((1, 60, 9, 9),)}, "ragged"),
        ({"outputs": ((1, 64, 9, 9),), "weight": (64, 64, 1, 7)}, "long"),
        ({"outputs": ((1, 64, 9, 9),), "attributes": (("dilations", (2, 2)),)}, "dilated"),
        ({"family": Family.ELEMENTWISE, "op": "Mul"}, "Mul"),
        ({"family": Family.ELEMENTWISE, "op": "Mul", "inputs": ((1, 64, 8, 8), (1, 64, 1, 1))}, "Mul broadcasting"),
        ({"outputs": ((1, 2, 9, 9),)}, "of few channels"),
        ({"family": Family.GROUPED, "outputs": ((1, 64, 9, 9),), "weight": (64, 16, 5, 5)}, "large"),
        (
            {"family": Family.ELEMENTWISE, "op": "Mul", "inputs": ((1, 64, 8, 8), (1, 64, 1, 8))},
            "Mul broadcasting between",
        ),
        ({"family": Family.SOFTMAX, "op": "Softmax", "attributes": (("axis", 1),)}, "Softmax inside"),
        ({"family": Family.SOFTMAX, "op": "Softmax", "attributes": (("axis", -1),)}, "Softmax"),
        (
            {"family": Family.COPY, "op": "Transpose", "attributes": (("perm", (0, 3, 2, 1)),)},
            "Transpose of several axes",
        ),
        ({"family": Family.COPY, "op": "Transpose", "attributes": (("perm", (0, 2, 3, 1)),)}, "Transpose"),
        ({"family": Family.CONV_TRANSPOSE, "op": "ConvTranspose", "weight": (64, 64, 9, 9)}, "ConvTranspose large"),
        ({"family": Family.CONV_TRANSPOSE, "op": "ConvTranspose", "weight": (64, 64, 2, 2)}, "ConvTranspose"),
        ({"family": Family.POOL, "op": "MaxPool"}, "MaxPool in plain order"),
        ({"family": Family.POOL, "op": "MaxPool", "layout": "channels_last"}, "MaxPool"),
    ):
        each = replace(ordinary, **changes)  # type: ignore[arg-type]
        assert group_of(each) == (str(each.family), "float32", trait)


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


def test_doubt_is_what_a_kernel_adds_to_the_error_of_networks() -> None:
    small, large, rare = kernel(1), kernel(2), kernel(3)
    times = {small.key: 1.0, large.key: 3.0, rare.key: 4.0}

    def belief(kernels: Sequence[Kernel]) -> tuple[Floats, Floats]:
        return np.log([times[each.key] for each in kernels]), np.full(len(kernels), 0.1)

    doubts = doubt_by_kernel([[small, large], [small, small, large], [rare]], belief)
    assert doubts[small.key] == pytest.approx(0.1 * (1 / 4 + 2 / 5))
    assert doubts[large.key] == pytest.approx(0.1 * (3 / 4 + 3 / 5))
    assert doubts[rare.key] == pytest.approx(0.1)


def test_a_forest_knows_what_it_has_seen_and_doubts_what_lies_apart() -> None:
    seen, apart = [kernel(channels) for channels in (20, 33, 47)], [kernel(channels) for channels in (305, 315, 325)]
    rows = [row(channels, ratio=channels**2 / 1000) for channels in (*range(8, 64), 900)]
    logs, deviations = forest_belief(rows)([*seen, *apart])
    assert np.exp(logs[:3]) == pytest.approx([0.4, 33**2 / 1000, 47**2 / 1000], rel=0.1)
    assert deviations[:3].max() < deviations[3:].min()
    more = [*rows, *(row(channels, ratio=channels**2 / 1000) for channels in range(300, 340))]
    assert forest_belief(more)(apart)[1].max() < deviations[3:].min()


def test_who_has_seen_nothing_doubts_everything_alike() -> None:
    for rows in ([], [KernelRow(kernel=kernel(3), date=DATE, rejected="no")]):
        logs, deviations = forest_belief(rows)([kernel(3), kernel(4)])
        assert logs.tolist() == [0.0, 0.0] and deviations.tolist() == [1.0, 1.0]
