import json

import pytest
import torch
from torch import nn

from bitwright.hw_constraints.cost.estimate import estimate
from bitwright.hw_constraints.explore import Workload, explore
from bitwright.hw_constraints.explore_axes import Axis
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture


@pytest.fixture(scope="module")
def target():
    return load_target("tesla-fsd-hw3")


@pytest.fixture(scope="module")
def hungry():
    """Each weight is used once: waits for DRAM."""
    network = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 2048))
    return capture(network, (torch.zeros(1, 2048),)).graph


@pytest.fixture(scope="module")
def busy():
    """Many positions, few weights: waits for the array."""
    network = nn.Sequential(nn.Conv2d(96, 96, 3, padding=1), nn.ReLU(), nn.Conv2d(96, 96, 3, padding=1))
    return capture(network, (torch.zeros(1, 96, 96, 96),)).graph


def explored(target, graphs, *vary, **weights):
    workloads = [Workload(name=name, graphs=(g,), weight=weights.get(name, 1.0)) for name, g in graphs.items()]
    return explore(workloads, target, [Axis.parse(text, target) for text in vary])


def changes(sweep):
    return [sweep.change(point) for point in sweep.points]


def test_the_own_setting_is_what_the_target_takes(target, busy):
    found = explored(target, {"busy": busy}, "memory.sram=1..64MiB")
    (sweep,) = found.sweeps
    assert sweep.own.total_us == estimate(lower(busy, target)).us
    assert sweep.change(sweep.own) == 0


def test_each_network_gains_from_what_it_waits_for(target, hungry, busy):
    axes = ("dram.bandwidth=17..272GB/s", "array=48..192")
    bandwidth, array = explored(target, {"hungry": hungry}, *axes).sweeps
    assert changes(bandwidth)[0] > 0.5
    assert changes(bandwidth)[-1] < -0.2
    assert abs(changes(array)[-1]) < 0.05
    bandwidth, array = explored(target, {"busy": busy}, *axes).sweeps
    assert abs(changes(bandwidth)[-1]) < 0.15
    assert changes(array)[0] > 0.5


def test_more_bandwidth_is_never_slower(target, hungry, busy):
    (sweep,) = explored(target, {"hungry": hungry, "busy": busy}, "dram.bandwidth=8..512GB/s").sweeps
    totals = [point.total_us for point in sweep.points]
    assert totals == sorted(totals, reverse=True)


def test_weights_count(target, hungry, busy):
    found = explored(target, {"hungry": hungry, "busy": busy}, "memory.sram=32MiB", hungry=3.0)
    own = found.sweeps[0].own
    assert own.total_us == pytest.approx(3 * own.us["hungry"] + own.us["busy"])
    shares = sum(each.share for each in found.held_back)
    assert shares == pytest.approx(1)
    assert found.held_back == tuple(sorted(found.held_back, key=lambda each: -each.share))


def test_a_layer_names_what_would_help_it(target, hungry):
    found = explored(target, {"hungry": hungry}, "dram.bandwidth=136GB/s", "npu.clock=2.1GHz")
    worst = found.held_back[0]
    assert worst.bound_by == "dram"
    assert worst.remedy == "dram.bandwidth"
    assert 0.2 < worst.gain < 0.6


def test_where_nothing_helps_nothing_is_named(target, hungry):
    found = explored(target, {"hungry": hungry}, "memory.sram=32MiB")
    assert {each.remedy for each in found.held_back} == {""}


def test_points_are_told_before_they_are_reckoned(target, busy):
    told = []
    axis = Axis.parse("memory.sram=16..32MiB", target)
    explore([Workload(name="busy", graphs=(busy,))], target, [axis], on_point=told.append)
    assert told == ["memory.sram = 16 MiB", "memory.sram = 32 MiB"]


def test_json_has_everything(target, busy):
    found = explored(target, {"busy": busy}, "memory.sram=1..32MiB", "dram.bandwidth=34GB/s")
    text = json.dumps(found.to_json())
    assert json.loads(text)["sweeps"][0]["points"][0]["setting"] == "1 MiB"
    assert json.loads(text)["origin"] == "modelled"


def test_what_the_figures_lean_on_is_listed(target, busy):
    found = explored(target, {"busy": busy}, "memory.sram=32MiB")
    assert any(text.startswith("engines.npu.array") for text in found.unverified)
    assert "one of the 2 npu runs the network" in found.assumptions
