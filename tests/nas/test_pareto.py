import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.nas.pareto import dominates, hypervolume, losses, non_dominated

SIDE = 6


def points(dimensions: int) -> st.SearchStrategy[list[tuple[int, ...]]]:
    return st.lists(st.tuples(*[st.integers(0, SIDE)] * dimensions), max_size=8)


def cells_dominated(front: list[tuple[int, ...]], dimensions: int) -> int:
    """Counts unit cells of the grid that some point dominates: the hypervolume, by definition."""
    return sum(
        any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in front)
        for cell in itertools.product(range(SIDE), repeat=dimensions)
    )


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_hypervolume_counts_the_dominated_cells_of_a_grid(dimensions: int) -> None:
    @given(points(dimensions))
    def check(front: list[tuple[int, ...]]) -> None:
        assert hypervolume(front, [SIDE] * dimensions) == cells_dominated(front, dimensions)

    check()


@given(points(3))
def test_the_front_is_what_nothing_dominates(cloud: list[tuple[int, ...]]) -> None:
    front = set(non_dominated(cloud))
    for index, point in enumerate(cloud):
        beaten = any(
            all(o <= p for o, p in zip(other, point, strict=True))
            and any(o < p for o, p in zip(other, point, strict=True))
            for other in cloud
        )
        assert (index in front) is not beaten


def test_fronts_of_one_objective_and_of_nothing() -> None:
    assert non_dominated([]) == []
    assert non_dominated([(3,), (1,), (2,), (1,)]) == [1, 3]


@given(points(2))
def test_only_the_front_matters_to_the_hypervolume(cloud: list[tuple[int, ...]]) -> None:
    front = [cloud[index] for index in non_dominated(cloud)]
    assert math.isclose(hypervolume(front, [9.0, 9.0]), hypervolume(cloud, [9.0, 9.0]))


def test_equal_points_both_stay_on_the_front() -> None:
    assert non_dominated([(1, 2), (1, 2), (2, 2)]) == [0, 1]
    assert not dominates((1, 2), (1, 2))


def test_maximised_objectives_are_turned_around() -> None:
    assert losses([0.9, 3.0], [True, False]) == (-0.9, 3.0)
