"""The search on a small network: what it finds against all assignments, evaluated one by one."""

import itertools
import re

import pytest
import torch

from bitwright.quant.errors import InputError
from bitwright.quant.mixed_precision import FLOAT, Cost, MixedNetworks, MixedSearch, Problem
from bitwright.quant.mixed_precision.networks import decibels
from bitwright.quant.mixed_precision.refine import refined
from bitwright.quant.ptq import quantize
from bitwright.quant.sensitivity import rounding_noise
from bitwright.quant.stored_size import element_bits, stored_bits

NAMES = ("int8", "float32")


def weight_bytes(graph, plan):
    refs = {ref for node in graph.nodes for ref in node.tensors if graph.is_constant(ref)}
    specs = {ref: plan.weights.get(ref) for ref in refs}
    return sum(stored_bits(graph, r, element_bits(graph.tensors[r].dtype, s), s) for r, s in specs.items()) / 8


def made_up_time(graph, plan):
    """Layers at one or four cycles a MAC, and a thousandth of a cycle for each element that changes its format."""
    layers = sum(graph.macs(node) * (1 if node.name in plan.quantized else 4) for node in graph.nodes)
    crossing = sum(
        (reader.name in plan.quantized) != (graph.producers[ref].name in plan.quantized)
        for ref in graph.producers
        for reader in graph.consumers[ref]
    )
    return layers / 1e3 + 3.0 * crossing


@pytest.fixture(scope="module")
def small(problem, reference, data):
    narrowed = Problem(graph=problem.graph, scheme=problem.scheme, formats=problem.formats, allowed=NAMES)
    return MixedNetworks(narrowed, reference, lambda s: quantize(reference, s, data), [(x,) for x in data[:4]])


@pytest.fixture(scope="module")
def search(small):
    costs = [Cost(name="time", unit="kcycles", of=made_up_time), Cost(name="size", unit="bytes", of=weight_bytes)]
    return MixedSearch(small, costs)


def every(problem):
    for chosen in itertools.product(NAMES, repeat=len(problem.groups)):
        yield dict(zip(problem.groups, chosen, strict=True))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_it_is_near_the_best_of_all_assignments_and_keeps_the_limit(search, small, share):
    limit = search.at_share("time", share)
    found = search.least_noise({"time": limit})
    assert found.costs["time"] == search.cost("time", found.formats) <= limit
    assert found.noise == small.noise(found.formats)
    allowed = sorted(small.noise(each) for each in every(small.problem) if search.cost("time", each) <= limit)
    assert decibels(found.noise) > decibels(allowed[0]) - 1.5  # noises are summed up as if they were independent
    assert found.noise <= allowed[len(allowed) // 20]


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_refined_from_a_bad_start_it_ends_where_no_change_of_one_layer_helps(search, small, share):
    limit = search.at_share("time", share)
    within = [each for each in every(small.problem) if search.cost("time", each) <= limit]
    start = max(within, key=small.noise)
    found = refined(start, small.noise, NAMES, search._near([(search._row("time"), limit)]))
    assert search.cost("time", found) <= limit
    beside = [each for each in within if sum(each[group] != found[group] for group in found) == 1]
    assert small.noise(found) < small.noise(start)
    assert small.noise(found) <= min(map(small.noise, beside))


def test_all_limits_are_kept(search):
    limits = {"time": search.at_share("time", 0.5), "size": search.at_share("size", 0.7)}
    found = search.least_noise(limits)
    assert all(found.costs[name] <= limit for name, limit in limits.items())


def test_never_worse_than_one_format_or_greedy(search, small):
    limit = search.at_share("time", 0.5)
    found = search.least_noise({"time": limit})
    assert found.noise <= small.noise(small.problem.uniform("int8"))
    assert found.noise <= min(c.noise for c in search._candidates(search._noise_row, [(search._row("time"), limit)]))


def test_a_floor_of_accuracy_makes_it_cheap(search, small):
    floor = (decibels(small.noise(small.problem.uniform("int8"))) + 10) // 1
    found = search.least_cost("time", floor)
    assert found.sqnr_db >= floor
    cheapest = min(search.cost("time", each) for each in every(small.problem) if decibels(small.noise(each)) >= floor)
    assert cheapest <= found.costs["time"] <= 1.25 * cheapest


def test_the_front_goes_down(search):
    found = search.pareto("time", points=8)
    assert len(found) >= 4
    for one, other in itertools.pairwise(found):
        assert one.costs["time"] < other.costs["time"]
        assert one.noise > other.noise


def test_a_limit_that_nothing_keeps_names_the_nearest(search):
    least = min(search.cost("time", each) for each in every(search.problem))
    said = "no assignment of int8, float32 keeps time ≤ 1 kcycles; the nearest that can be kept: time = "
    with pytest.raises(InputError, match=re.escape(f"{said}{least:.4g} kcycles")):
        search.least_noise({"time": 1.0})


def test_a_floor_that_nothing_keeps_names_the_nearest(problem, reference, data):
    only = Problem(graph=problem.graph, scheme=problem.scheme, formats=problem.formats, allowed=("int8",))
    networks = MixedNetworks(only, reference, lambda s: quantize(reference, s, data), [(x,) for x in data[:4]])
    got = decibels(networks.noise(only.uniform("int8")))
    search = MixedSearch(networks, [Cost(name="time", unit="kcycles", of=made_up_time)])
    said = "results ≥ 90.00 dB SQNR; the nearest that can be kept: results = "
    with pytest.raises(InputError, match=re.escape(f"{said}{got:.2f} dB")):
        search.least_cost("time", 90.0)


def test_a_network_of_an_assignment_is_that_of_its_scheme(networks, reference, data):
    """What uniform networks lend is what quantizing with the mixed scheme gives: ranges, weights and corrections."""
    problem = networks.problem
    assignment = {**problem.uniform("int8"), "stem.0": FLOAT.name, "block.out": "int16", "head": FLOAT.name}
    put_together, whole = networks.of(assignment), quantize(reference, problem.mixed_scheme(assignment), data)
    assert put_together.plan == whole.plan
    assert put_together.qparams.keys() == whole.qparams.keys()
    assert torch.allclose(put_together.run(data[0]), whole.run(data[0]), atol=1e-5)


def test_first_order_noise_is_the_noise_of_small_errors(reference, data):
    """Rounding replaced by a small random error: the estimate is the measured mean square of the results' change."""
    ref = reference.graph.by_name[next(n.name for n in reference.graph.nodes if n.op == "conv2d")].outputs[0]
    generator = torch.Generator().manual_seed(0)
    errors = [1e-3 * torch.randn(2, 8, 8, 8, generator=generator) for _ in range(64)]
    measured = 0.0
    for error in errors:
        change = reference.run(data[0], transform=lambda r, x, e=error: x + e if r == ref else x) - reference.run(
            data[0]
        )
        measured += float(change.square().sum()) / len(errors)
    way = {ref: {"noisy": lambda x: x + 1e-3}}  # of the same variance everywhere
    estimated = rounding_noise(reference, way, [(data[0],)], projections=256)[ref, "noisy"]
    assert estimated == pytest.approx(measured, rel=0.25)  # 64 draws of noise and 256 of signs


def test_estimates_are_near_what_each_layer_does_alone(search):
    """Within a factor of four: errors are taken as independent, and what bias correction takes away is not seen."""
    for group in search.problem.groups:
        alone = search.noise.alone([group], "int8")
        assert alone / 4 < search.noise.estimated.alone[group, "int8"] < alone * 4


def test_a_block_back_in_float_takes_its_noise_away(search, small):
    noise, full = search.noise, small.problem.uniform("int8")
    block = noise.blocks(1)["block"]
    assert block == ("block.body.0", "block.out", "block")
    without = small.noise({**full, **dict.fromkeys(block, FLOAT.name)})
    assert noise.back(block, "int8") == pytest.approx(small.noise(full) - without)
    assert noise.back(tuple(full), "int8") == pytest.approx(small.noise(full))
