"""Which layers go together, and that an assignment's scheme gives each what it was assigned."""

import itertools
import random

import pytest

from bitwright.quant.mixed_precision import FLOAT, LayerFormat, Problem
from bitwright.quant.plan import plan
from bitwright.quant.scheme import Override


def test_groups_are_modules_with_what_runs_fused_behind_them(problem):
    assert list(problem.groups) == ["stem.0", "block.body.0", "block.out", "block", "left", "right", "head"]
    assert problem.groups["stem.0"].modules == ("stem.0", "stem.2")  # convolution and ReLU6 run as one
    assert problem.groups["block"].macs == 0
    assert problem.groups["left"].macs == 2 * 8 * 8 * 8 * 8
    assert sum(group.macs for group in problem.groups.values()) == sum(map(problem.graph.macs, problem.graph.nodes))


def test_neighbours_are_found_through_operators_without_a_choice(problem):
    assert ("stem.0", "block") in problem.edges
    assert ("block", "left") in problem.edges
    assert ("left", "right") in problem.edges  # both feed the concat
    assert ("left", "head") in problem.edges
    assert ("stem.0", "left") not in problem.edges


def test_what_a_concat_joins_is_tied(problem):
    assert [tie.groups for tie in problem.ties] == [frozenset({"left", "right"})]


@pytest.mark.parametrize("seed", range(12))
def test_each_layer_gets_what_it_was_assigned(problem, seed):
    drawn = random.Random(seed)
    assignment = {group: drawn.choice(problem.allowed) for group in problem.groups}
    assignment["right"] = assignment["left"]
    decided = problem.plan(assignment)
    for group in problem.groups.values():
        wanted = problem.by_name[assignment[group.name]]
        anchor = problem.graph.by_name[group.nodes[0]]
        assert (anchor.name in decided.quantized) is not wanted.is_float
        if not wanted.is_float:
            result = problem.graph.by_name[group.nodes[-1]].outputs[0]
            spec = decided.activations.get(result)
            assert spec is None or spec == (wanted.activations or problem.scheme.activations)
            assert result in decided.activations or result in problem.graph.outputs


def test_one_format_everywhere_is_the_scheme_itself(problem):
    assert problem.mixed_scheme(problem.uniform("int8")) == problem.scheme


def test_an_exception_of_the_scheme_survives_an_exception_around_it(reference, problem):
    kept = Override(module="block.out", weights=problem.by_name["int16"].weights, origin="recipe.yaml:7")
    scheme = problem.scheme.with_overrides(kept)
    own = Problem(graph=reference.graph, scheme=scheme, formats=(LayerFormat(name="int8"), FLOAT), allowed=("int8",))
    assignment = {**own.uniform("int8"), "block": FLOAT.name}
    found = own.mixed_scheme(assignment).override_for(module_path="block.out", operator="conv2d")
    assert (found.weights, found.keep_float) == (kept.weights, False)


def test_all_combinations_of_float_are_the_plans_of_overrides_by_operator_order(problem, reference):
    """Against overrides written by hand, the outer module first."""
    for chosen in itertools.product([False, True], repeat=2):
        assignment = problem.uniform("int8") | {
            name: FLOAT.name for name, is_float in zip(("block", "block.out"), chosen, strict=True) if is_float
        }
        by_hand = [Override(module="block", keep_float=chosen[0]), Override(module="block.body")]
        by_hand.append(Override(module="block.out", keep_float=chosen[1]))
        wanted = plan(reference.graph, problem.scheme.with_overrides(*by_hand))
        assert problem.plan(assignment).quantized == wanted.quantized
