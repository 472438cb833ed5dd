"""The cut against trying every assignment, and prices learnt from made-up times."""

import itertools

import numpy as np
import pytest

from bitwright.hw_constraints.autotune.decision import Decision
from bitwright.hw_constraints.autotune.estimate import Estimate, site_times


def drawn(sites, seed: int) -> Estimate:
    generator = np.random.default_rng(seed)
    float_us, int8_us = (dict(zip(sites.by_name, generator.uniform(1, 50, 20), strict=False)) for _ in range(2))
    return Estimate(sites=sites, float_us=float_us, int8_us=int8_us)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("price", [0.0, 1e-3, 2e-2, 1.0])
def test_the_cut_is_the_best_of_all_assignments(candidates, seed, price):
    estimate = drawn(candidates.sites, seed)
    names = list(candidates.sites.by_name)
    every = (
        estimate.total_us(frozenset(itertools.compress(names, mask)), price)
        for mask in itertools.product((0, 1), repeat=len(names))
    )
    assert estimate.total_us(estimate.cut(price), price) == pytest.approx(min(every), rel=1e-5)


def test_conversions_that_cost_nothing_leave_each_site_to_itself_and_dear_ones_none(candidates):
    estimate = drawn(candidates.sites, 0)
    alone = {name for name in estimate.float_us if estimate.float_us[name] < estimate.int8_us[name]}
    assert estimate.cut(0.0) == alone
    assert estimate.cut(1e3) in (frozenset(), frozenset(candidates.sites.by_name))


def test_every_price_gives_an_assignment_and_each_stands_there_once(candidates):
    estimate = drawn(candidates.sites, 1)
    found = estimate.assignments()
    assert len(found) >= 3
    assert all(estimate.cut(price) == floats for floats, price in found.items())


def test_the_price_is_learnt_from_times(candidates):
    estimate, price = drawn(candidates.sites, 2), 0.013
    overhead = 1.7  # what is measured may be longer than the sites by a factor
    times = {floats: overhead * estimate.total_us(floats, price) for floats in estimate.assignments()}
    reference = times[min(times, key=len)]
    ratios = {floats: time / reference for floats, time in times.items()}
    assert estimate.learnt_price(ratios) == pytest.approx(price, rel=1e-6)


def test_times_of_sites_are_read_from_the_runtime(candidates, samples, tmp_path):
    file = candidates.write(Decision(), tmp_path / "full.onnx")
    times = site_times(candidates.sites, file, "onnxruntime", samples(1, 5)[0], threads=1, runs=5)
    assert set(times) == set(candidates.sites.by_name)
    convolutions = [name for name, site in candidates.sites.by_name.items() if site.kind.startswith("conv2d")]
    assert all(times[name] > 0 for name in convolutions)
