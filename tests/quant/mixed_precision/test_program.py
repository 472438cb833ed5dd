"""The integer program against brute force over all assignments, on random costs of groups and pairs."""

import itertools
import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.quant.mixed_precision.problem import Tie
from bitwright.quant.mixed_precision.program import Program, keeps
from bitwright.quant.mixed_precision.tables import Table, expand

FORMATS = ("int8", "int4", "float32")
CODES = {"int8": "u8", "int4": "u4", "float32": None}
costs = st.integers(-20, 20).map(lambda n: n / 4)


def problem_of(groups, formats=FORMATS, ties=()):
    """What the program reads of a problem."""
    return SimpleNamespace(
        groups=dict.fromkeys(groups), allowed=formats, codes=CODES.get, ties=tuple(Tie(groups=each) for each in ties)
    )


@st.composite
def tables(draw, groups, edges):
    alone = {(g, f): draw(costs) for g in groups for f in FORMATS}
    pairs = {edge: {(f, h): draw(costs) for f in FORMATS for h in FORMATS} for edge in edges}
    return Table(constant=draw(costs), alone=alone, pairs=pairs)


@st.composite
def programs(draw):
    groups = [f"g{i}" for i in range(draw(st.integers(1, 5)))]
    every = list(itertools.combinations(groups, 2))
    edges = draw(st.lists(st.sampled_from(every), unique=True, max_size=5)) if every else []
    ties = draw(st.lists(st.frozensets(st.sampled_from(groups), min_size=2), max_size=2)) if every else []
    limits = [(draw(tables(groups, edges)), draw(costs) * 3) for _ in range(draw(st.integers(0, 2)))]
    return groups, ties, draw(tables(groups, edges)), limits


def assignments(groups, ties=(), formats=FORMATS):
    for chosen in itertools.product(formats, repeat=len(groups)):
        found = dict(zip(groups, chosen, strict=True))
        if all(len({CODES[found[g]] for g in tie} - {None}) <= 1 for tie in ties):
            yield found


@settings(max_examples=150, deadline=None)
@given(programs())
def test_the_optimum_is_brute_force_s(drawn):
    groups, ties, objective, limits = drawn
    feasible = [each for each in assignments(groups, ties) if all(keeps(table, limit, each) for table, limit in limits)]
    found = Program(problem=problem_of(groups, ties=ties)).minimise(objective, limits)
    if not feasible:
        assert found is None
        return
    assert found in feasible
    assert math.isclose(objective.total(found), min(map(objective.total, feasible)), abs_tol=1e-9)


@settings(max_examples=60, deadline=None)
@given(programs())
def test_the_nearest_exceeds_least(drawn):
    groups, ties, _, limits = drawn
    limits = [(table, limit) for table, limit in limits if limit]

    def excess(assignment):
        return sum(max(0.0, table.total(assignment) - limit) / abs(limit) for table, limit in limits)

    found = Program(problem=problem_of(groups, ties=ties)).nearest(limits)
    assert math.isclose(excess(found), min(map(excess, assignments(groups, ties))), abs_tol=1e-6)


@settings(max_examples=60, deadline=None)
@given(programs())
def test_excluding_the_best_gives_the_second_best(drawn):
    groups, ties, objective, _ = drawn
    program = Program(problem=problem_of(groups, ties=ties))
    best = program.minimise(objective)
    second = program.minimise(objective, excluded=[best])
    others = sorted(objective.total(each) for each in assignments(groups, ties) if each != best)
    assert math.isclose(objective.total(second), others[0], abs_tol=1e-9) if others else second is None


@settings(max_examples=60, deadline=None)
@given(programs(), st.data())
def test_a_cost_of_groups_and_pairs_is_found_again_around_any_base(drawn, data):
    groups, _, table, _ = drawn
    base = {group: data.draw(st.sampled_from(FORMATS)) for group in groups}
    found = expand(table.total, base, FORMATS, list(table.pairs))
    for each in assignments(groups):
        assert found.total(each) == pytest.approx(table.total(each), abs=1e-9)


def test_a_boundary_is_paid_where_formats_meet():
    """Three layers; the middle one loses 1 in int8 but two conversions of 2 each would cost more."""
    alone = {("a", "float32"): 5.0, ("c", "float32"): 5.0, ("b", "int8"): 1.0}
    crossing = {("int8", "float32"): 2.0, ("float32", "int8"): 2.0}
    problem = problem_of("abc", ("int8", "float32"))
    straight = Program(problem=problem).minimise(Table(alone=alone))
    assert straight == {"a": "int8", "b": "float32", "c": "int8"}
    bounded = Program(problem=problem).minimise(Table(alone=alone, pairs={("a", "b"): crossing, ("b", "c"): crossing}))
    assert set(bounded.values()) == {"int8"}
