"""Contradictions between predicates, against brute force over a grid of property values."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.hw_constraints.predicate import Predicate
from bitwright.hw_constraints.predicate_bounds import contradictory
from bitwright.hw_constraints.target import list_targets, load_target
from bitwright.quant.errors import InputError

NAMES = ("kernel_h", "padding_h", "depthwise")
numbers = st.one_of(st.sampled_from(NAMES), st.integers(0, 6).map(str))
sums = st.recursive(
    numbers,
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(
        lambda t: f"({t[0]} {t[1]} {t[2]})"
    ),
    max_leaves=3,
)
comparisons = st.one_of(
    st.tuples(sums, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), sums).map(" ".join),
    st.tuples(numbers, st.lists(numbers, min_size=1, max_size=3)).map(lambda t: f"{t[0]} in ({', '.join(t[1])},)"),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda text: f"(not {text})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
    ),
    max_leaves=4,
).filter(lambda text: any(name in text for name in NAMES) and len(text) < 400)
GRID = [dict(zip(NAMES, point, strict=True)) for point in product(range(1, 10), range(9), (False, True))]


def holds(predicate: Predicate, point: dict[str, int]) -> bool:
    try:
        return predicate.holds(point) is True
    except InputError:  # a division by zero
        return False


@settings(max_examples=400, deadline=None)
@given(st.lists(conditions, min_size=1, max_size=3))
def test_what_some_call_meets_is_never_called_contradictory(texts: list[str]) -> None:
    predicates = [Predicate.parse(text) for text in texts]
    if any(all(holds(predicate, point) for predicate in predicates) for point in GRID):
        assert not contradictory(predicates)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(NAMES[:2]), st.integers(-3, 40), st.integers(-3, 40))
def test_bounds_on_one_property_are_decided_exactly(name: str, low: int, high: int) -> None:
    least = 1 if name == "kernel_h" else 0
    predicates = [Predicate.parse(f"{name} >= {low}"), Predicate.parse(f"{name} <= {high}")]
    assert contradictory(predicates) == (max(low, least) > high)


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(1, 9), min_size=1, max_size=4), st.sets(st.integers(1, 9), min_size=1, max_size=4))
def test_choices_are_decided_exactly(one: set[int], other: set[int]) -> None:
    predicates = [Predicate.parse(f"kernel_h in ({', '.join(map(str, each))},)") for each in (one, other)]
    assert contradictory(predicates) == (not one & other)


@pytest.mark.parametrize(
    "texts",
    [
        ["kernel_h > 32 and kernel_h < 3"],
        ["kernel_h <= 0"],
        ["groups < 1"],
        ["kernel_h * kernel_w < 1"],
        ["channels % 4 == 4"],
        ["not (kernel_h >= 1)"],
        ["depthwise and not depthwise"],
        ["dtype == 'int8' and dtype == 'int16'"],
        ["dtype in ('int8', 'int16') and dtype not in ('int8', 'int16', 'float32')"],
        ["dtype == 3"],
        ["scale_h in (1, 2, 4)", "scale_h > 4"],
        ["rank < 3", "rank >= 4"],
        ["kernel_h * kernel_w * ((channels + 15) // 16) <= 2048", "channels > 40000"],
        ["axis == rank - 1", "rank == 4", "axis == 2"],
        ["kernel_h <= 2 if padding_h == 0 else kernel_h <= 3", "kernel_h == 4"],
    ],
)
def test_contradictions(texts: list[str]) -> None:
    assert contradictory([Predicate.parse(text) for text in texts])


@pytest.mark.parametrize(
    "texts",
    [
        ["kernel_h <= 32"],
        ["channels % 8 == 3", "channels % 8 == 5"],  # true, but not decided by intervals
        ["kernel_h < 0.5"],  # not decided: fractions
        ["kernel_h // 0 == 1"],
        ["dtype == 'int8' or kernel_h == 2", "kernel_h != 2"],
        ["kernel_h * 1" + "0" * 350 + " >= 1"],
        ["kernel_h < " + "9" * 380],
        ["stride_h == 0"],
        [f"kernel_h != {n}" for n in range(1, 60)],
    ],
)
def test_no_alarm_where_nothing_is_proven(texts: list[str]) -> None:
    assert not contradictory([Predicate.parse(text) for text in texts])


@pytest.mark.parametrize("name", list_targets())
def test_every_operator_of_every_target_can_be_called(name: str) -> None:
    target = load_target(name)
    for op in {op for constraint in target.constraints for op in constraint.operators}:
        assert not contradictory([each.require for each in target.constraints_on(op)])
