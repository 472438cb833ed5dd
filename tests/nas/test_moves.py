import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.nas.block_choices import BlockChoices
from bitwright.nas.declared_space import DeclaredSpace, Need
from bitwright.nas.moves import largest_candidate, mutate, neighbours, random_candidate, sample_at_cost
from bitwright.nas.space import Candidate, Parameter
from bitwright.quant.errors import InputError

SPACE = DeclaredSpace(
    own=(
        Parameter(name="depth", choices=(1, 2, 3), ordered=True),
        Parameter(name="kernel_1", choices=(3, 5, 7), ordered=True),
        Parameter(name="kernel_2", choices=(3, 5, 7), ordered=True),
        Parameter(name="activation", choices=("relu", "hardswish"), ordered=False),
        Parameter(name="se", choices=(False, True), ordered=False),
    ),
    needs={"kernel_1": Need(parameter="depth", least=2), "kernel_2": Need(parameter="depth", least=3)},
    block_choices=BlockChoices(formats=("int8", "int16"), stages=1),
)


def every_candidate() -> dict[str, Candidate]:
    names = [each.name for each in SPACE.parameters]
    combinations = itertools.product(*(each.choices for each in SPACE.parameters))
    every = (Candidate(SPACE.canonical(dict(zip(names, values, strict=True)))) for values in combinations)
    return {each.key: each for each in every}


EVERY = every_candidate()


def difference(one: Candidate, other: Candidate) -> list[str]:
    """Decisions that differ and mean something for both."""
    return [
        name
        for name in one.values
        if one.values[name] != other.values[name]
        and SPACE.has_meaning(name, one.values)
        and SPACE.has_meaning(name, other.values)
    ]


def test_decisions_without_meaning_make_no_candidates() -> None:
    # One kernel choice for depth 1, 3 for depth 2, 9 for depth 3; activation, se and format are always free.
    assert len(EVERY) == (1 + 3 + 9) * 2 * 2 * 2
    deep = {"depth": 1, "kernel_1": 7, "kernel_2": 5, "activation": "relu", "se": True, "format_0": "int8"}
    assert SPACE.canonical(deep) == {**deep, "kernel_1": 3, "kernel_2": 3}
    assert SPACE.canonical({**deep, "depth": 2}) == {**deep, "depth": 2, "kernel_2": 3}


def test_what_needs_a_decision_without_meaning_has_none() -> None:
    chain = DeclaredSpace(
        own=tuple(Parameter(name=name, choices=(0, 1), ordered=True) for name in "abc"),
        needs={"b": Need(parameter="a", least=1), "c": Need(parameter="b", least=1)},
    )
    assert chain.canonical({"a": 0, "b": 1, "c": 1}) == {"a": 0, "b": 0, "c": 0}


@pytest.mark.parametrize("key", sorted(EVERY)[::7])
def test_neighbours_are_those_one_step_away(key: str) -> None:
    here = EVERY[key]
    near = neighbours(SPACE, here)
    assert len({each.key for each in near}) == len(near)
    assert here.key not in {each.key for each in near}
    for each in near:
        assert each.key in EVERY
        (changed,) = difference(here, each)
        parameter = next(one for one in SPACE.parameters if one.name == changed)
        if parameter.ordered:
            places = [parameter.choices.index(one.values[changed]) for one in (here, each)]
            assert abs(places[0] - places[1]) == 1
    # A candidate of the same depth is a neighbour exactly if one decision differs by one step (or has no order).
    for other in EVERY.values():
        if other.values["depth"] == here.values["depth"] and len(difference(here, other)) == 1:
            (name,) = difference(here, other)
            near_enough = not name.startswith("kernel") or abs(int(here.values[name]) - int(other.values[name])) == 2
            assert (other.key in {each.key for each in near}) == near_enough


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(EVERY)), st.integers(0, 1000))
def test_a_mutation_changes_one_decision_that_means_something(key: str, seed: int) -> None:
    changed = mutate(SPACE, EVERY[key], np.random.default_rng(seed))
    assert changed.key in EVERY
    assert len(difference(EVERY[key], changed)) == 1
    assert changed.key == mutate(SPACE, EVERY[key], np.random.default_rng(seed)).key


def test_a_space_of_one_candidate_cannot_be_mutated() -> None:
    lonely = DeclaredSpace(own=(Parameter(name="depth", choices=(1,), ordered=True),))
    with pytest.raises(InputError, match="depth 1 is its only candidate, so there is nothing to change it to"):
        mutate(lonely, largest_candidate(lonely), np.random.default_rng(0))


def test_every_decision_of_a_random_candidate_is_uniform() -> None:
    rng = np.random.default_rng(0)
    depths = Counter(random_candidate(SPACE, rng).values["depth"] for _ in range(3000))
    assert all(abs(count - 1000) < 4 * np.sqrt(3000 * 2 / 9) for count in depths.values())


def test_the_largest_candidate_has_the_greatest_numbers() -> None:
    assert largest_candidate(SPACE).values == {
        "depth": 3,
        "kernel_1": 7,
        "kernel_2": 7,
        "activation": "relu",
        "se": True,
        "format_0": "int8",
    }


def macs(candidate: Candidate) -> float:
    kernels = [int(candidate.values[f"kernel_{index}"]) for index in range(1, int(candidate.values["depth"]))]
    return 9.0 + sum(kernel**2 for kernel in kernels) + (1.5 if candidate.values["se"] else 0.0)


@pytest.mark.parametrize(("low", "high"), [(9, 60), (107, 107), (108.5, 110)])
def test_candidates_at_a_cost_cost_that(low: float, high: float) -> None:
    rng = np.random.default_rng(1)
    found = [sample_at_cost(SPACE, rng, macs, low, high, draws=4) for _ in range(20)]
    assert all(low <= macs(each) <= high for each in found)
    assert len({each.key for each in found}) > 1


def test_a_band_without_candidates_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"whose cost lies in \[1000, 2000\] .* the nearest costs 108.5: depth 3"):
        sample_at_cost(SPACE, np.random.default_rng(0), macs, 1000, 2000)
    with pytest.raises(InputError, match="low = 2, high = 1: the band is empty"):
        sample_at_cost(SPACE, np.random.default_rng(0), macs, 2, 1)
