"""Searches at once and in two steps: how their fronts are compared, and what their latencies are the sum of."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from bitwright.experiments.benchmarks.cluttered_digits import SIZE, open_cluttered_digits
from bitwright.experiments.benchmarks.front_shares import shares_of_range
from bitwright.experiments.benchmarks.joint_costs import covering, in_formats, part_names
from bitwright.experiments.benchmarks.joint_networks import STAGES, JointNetworks, architecture_space, network
from bitwright.experiments.datasets import Split
from bitwright.nas.supernet import SupernetSettings


def test_a_front_is_better_where_it_offers_more_within_the_budget() -> None:
    others = [(1.0, 50.0), (2.0, 60.0), (4.0, 70.0)]  # two doublings: each is half of the range
    assert shares_of_range([(0.5, 55.0)], others).better == pytest.approx(0.5)
    assert shares_of_range([(0.5, 55.0), (1.5, 65.0)], others).better == pytest.approx(1.0)
    late = shares_of_range([(math.sqrt(2), 55.0), (2.0, 60.5)], others)
    assert (late.better, late.worse) == (pytest.approx(0.75), pytest.approx(0.25))


def test_as_accurate_counts_where_it_is_faster_and_the_same_network_is_equal() -> None:
    others = [(1.0, 50.0), (2.0, 60.0), (4.0, 70.0)]
    shares = shares_of_range([(0.9, 50.0), (2.0, 60.0)], others)
    assert (shares.better, shares.equal, shares.worse) == (pytest.approx(0.5), pytest.approx(0.5), 0.0)
    assert shares_of_range([(1.1, 50.0)], others[:1]).worse == 1.0


def test_dominated_networks_do_not_widen_the_range() -> None:
    others = [(1.0, 50.0), (2.0, 60.0), (8.0, 55.0)]
    assert shares_of_range([(1.0, 50.0), (2.0, 60.0)], others).equal == pytest.approx(1.0)


def test_shares_agree_with_many_budgets() -> None:
    rng = np.random.default_rng(0)
    own, others = (list(zip(rng.uniform(1, 9, 7), rng.uniform(50, 60, 7), strict=True)) for _ in range(2))
    front = [each for each in others if not any(a < each[0] and b > each[1] for a, b in others)]
    budgets = np.exp(np.linspace(*(math.log(end(ms for ms, _ in front)) for end in (min, max)), 20_001)[:-1])

    def offered(points: list[tuple[float, float]], budget: float) -> float:
        return max((accuracy for ms, accuracy in points if ms <= budget), default=-math.inf)

    better = np.mean([offered(own, budget) > offered(front, budget) for budget in budgets])
    assert shares_of_range(own, others).better == pytest.approx(better, abs=1e-3)


def test_each_form_of_each_stage_is_met_behind_each_width() -> None:
    space = architecture_space((0.5, 1.0), (1, 3))
    met = {name for values in covering(space) for name in part_names(in_formats(values, ("int8",) * STAGES).values)}
    everything = itertools.product(*(each.choices for each in space.parameters))
    names = [each.name for each in space.parameters]
    rng = np.random.default_rng(0)
    for index, values in enumerate(everything):
        if rng.random() < 0.01 or index == 0:
            candidate = in_formats(dict(zip(names, values, strict=True)), ("int8",) * STAGES)
            assert {*part_names(candidate.values)} <= met
    assert len(met) == 2 + 16 + 3 * 2 * 16 + 1  # heads, first stage, later stages, stem


def test_stem_and_head_have_the_formats_of_the_stages_beside_them(tmp_path: Path) -> None:
    networks = JointNetworks(
        architectures=architecture_space((0.5,), (1,)), shared=SupernetSettings(epochs=1), folder=tmp_path
    )
    values = {each.name: each.choices[0] for each in networks.architectures.parameters}
    candidate = in_formats(values, ("float32", "int8", "int8", "float32"))
    assert networks.space.canonical(candidate.values) == candidate.values
    formats = networks.space.formats(candidate, network(values))
    assert formats["stem"] == formats["blocks.0"] == formats["head"] == formats["classifier"] == "float32"
    assert formats["blocks.1"] == formats["blocks.2"] == "int8"


def test_pictures_follow_from_the_seed_and_scored_digits_are_never_trained_on() -> None:
    data = open_cluttered_digits()
    first, again, other = (next(iter(data.loader(Split.TRAIN, 8, seed))) for seed in (3, 3, 4))
    assert first[0].shape == (8, 3, SIZE, SIZE)
    assert bool((first[0] == again[0]).all()) and not bool((first[0] == other[0]).all())
    assert -1 <= float(first[0].min()) < float(first[0].max()) <= 1
    counts = [sum(len(labels) for _, labels in data.loader(split, 256, None)) for split in data.splits]
    assert counts == list(data.splits.values())
