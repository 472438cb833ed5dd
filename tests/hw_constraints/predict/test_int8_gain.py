from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from made_up_machine import SCHEME, network_us, networks, splits, table

from bitwright.hw_constraints.predict.before_compiling import gain_of_graph
from bitwright.hw_constraints.predict.from_table import predictor_of
from bitwright.hw_constraints.predict.int8_gain import Expectation, Int8Gain, int8_gain
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.nas.latency import predicted_latency
from bitwright.quant.plan import plan

NEW = 16


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> LatencyPredictor:
    return predictor_of(table(tmp_path_factory.mktemp("tables") / "made-up.table"))


@pytest.fixture(scope="module")
def gains(predictor: LatencyPredictor) -> list[tuple[Int8Gain, float]]:
    """What is expected of new networks, and the true ratio."""
    found, pairs = splits(NEW, seed=7), []
    for network in networks(NEW, seed=7):
        in_float, in_int8 = found[f"{network.name}/float32"], found[f"{network.name}/int8"]
        times = [network_us([placed.kernel for placed in each.kernels]) for each in (in_int8, in_float)]
        pairs.append((int8_gain(predictor, in_float, in_int8), times[0] / times[1]))
    return pairs


def test_it_tells_faster_from_slower(gains: list[tuple[Int8Gain, float]]) -> None:
    truths = [truth for _, truth in gains]
    assert min(truths) < 0.9 and max(truths) > 1.1  # both happen on this machine
    told = [(gain, truth) for gain, truth in gains if gain.expectation is not Expectation.UNSURE]
    clear = [gain for gain, truth in gains if abs(math.log(truth)) > math.log(1.3)]
    assert all(gain.expectation is not Expectation.UNSURE for gain in clear)
    assert len(told) >= len(gains) / 2
    assert all((gain.expectation is Expectation.FASTER) == (truth < 1) for gain, truth in told)
    assert np.median([abs(math.log(gain.ratio / truth)) for gain, truth in gains]) < 0.03


def test_it_abstains_exactly_where_the_interval_contains_1(gains: list[tuple[Int8Gain, float]]) -> None:
    for gain, _ in gains:
        assert (gain.expectation is Expectation.UNSURE) == (gain.low <= 1 <= gain.high)
        assert ("cannot be told beforehand" in str(gain)) == (gain.expectation is Expectation.UNSURE)


def test_stretches_add_up_to_both_versions(gains: list[tuple[Int8Gain, float]]) -> None:
    for gain, _ in gains:
        kernels = [sum(layer.us for layer in each.layers) for each in (gain.in_float, gain.in_int8)]
        assert sum(each.float_us for each in gain.stretches) == pytest.approx(kernels[0])
        assert sum(each.int8_us for each in gain.stretches) == pytest.approx(kernels[1])
        assert [each.loss_us for each in gain.stretches] == sorted(
            (each.loss_us for each in gain.stretches), reverse=True
        )


def test_who_loses_is_named_with_its_conversions(gains: list[tuple[Int8Gain, float]]) -> None:
    slower = next(gain for gain, truth in gains if truth > 1.1)
    assert slower.losers and slower.losers[0].int8_us > slower.losers[0].float_us
    assert f"{slower.losers[0].layers[0]}: " in str(slower.losers[0])


def test_a_graph_and_a_plan_are_enough(predictor: LatencyPredictor, gains: list[tuple[Int8Gain, float]]) -> None:
    graph = networks(1, seed=7)[0].graph
    assert gain_of_graph(predictor, graph, plan(graph, SCHEME)).ratio == pytest.approx(gains[0][0].ratio)


def test_a_search_asks_the_same_table(tmp_path: Path) -> None:
    made_up = table(tmp_path / "made-up.table")
    graph, name = networks(1, seed=7)[0].graph, networks(1, seed=7)[0].name
    found = predicted_latency(made_up.path)(graph, plan(graph, SCHEME))
    truth = network_us([placed.kernel for placed in splits(1, seed=7)[f"{name}/int8"].kernels])
    assert found.latency_ms == pytest.approx(truth / 1e3, rel=0.1)
    assert found.low_ms < found.latency_ms < found.high_ms
