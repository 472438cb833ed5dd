"""Estimates add up, keep their bounds, and say what they lean on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bitwright.hw_constraints.cost.estimate import LatencyEstimate, estimate
from bitwright.hw_constraints.cost.timeline import draw, perfetto, spans
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target import list_targets, load_target
from bitwright.hw_constraints.target_types import Capability
from bitwright.hw_constraints.testing import GraphBuilder
from bitwright.quant.graph import Graph

WITH_COST = [name for name in list_targets() if Capability.COST in load_target(name).capabilities]
# Its cost hangs on the values of weights, which graphs written by hand do not have.
BY_SHAPES = [name for name in WITH_COST if not name.startswith("ethos")]


def network() -> Graph:
    net = GraphBuilder()
    x = net.conv2d(net.input(1, 3, 32, 32), 32, stride=2)
    for _ in range(3):
        y = net.call("relu", net.conv2d(x, 64, 1), shape=(1, 64, 16, 16))
        y = net.conv2d(net.conv2d(y, 64, groups=64), 32, 1)
        x = net.call("add", x, y, shape=(1, 32, 16, 16), alpha=1)
    return net.graph(net.conv2d(x, 64, stride=2))


def estimated(name: str) -> LatencyEstimate:
    return estimate(lower(network(), load_target(name)))


@pytest.mark.parametrize("name", BY_SHAPES)
def test_layers_add_up_within_their_bounds(name: str) -> None:
    found = estimated(name)
    known = [layer for layer in found.layers if layer.us is not None]
    assert found.us == pytest.approx(sum(layer.us or 0 for layer in known))
    assert known
    for layer in known:
        assert layer.us is not None
        assert layer.us >= 0.999 * layer.compute_us
        assert layer.utilisation is None or 0 < layer.utilisation <= 1.001
        assert layer.bound_by in ("compute", "launch", *found.peak_bytes, *found.lowered.target.memories)
    assert sum(layer.macs for layer in found.layers) == sum(map(network().macs, network().nodes))


@pytest.mark.parametrize("name", BY_SHAPES)
def test_no_network_beats_its_roofs(name: str) -> None:
    found = estimated(name)
    target = found.lowered.target
    fmt = target.numerics.weights[0].format.name
    rates = [engine.macs_per_second(fmt) for engine in target.engines.values()]
    macs = sum(layer.macs for layer in found.layers if layer.us is not None)
    assert found.us >= 0.999e6 * macs / max(rate for rate in rates if rate)


def test_half_the_bandwidth_is_never_faster_and_twice_never_slower() -> None:
    target = load_target("tesla-fsd-hw3")
    times = []
    for factor in (0.25, 1.0, 4.0):
        dram = target.memories["dram"]
        figure = dram.figures["bandwidth"]
        quantity = replace(figure.quantity, value=figure.quantity.value * factor)
        memory = replace(dram, figures={**dram.figures, "bandwidth": replace(figure, quantity=quantity)})
        changed = replace(target, memories={**target.memories, "dram": memory})
        times.append(estimate(lower(network(), changed)).us)
    assert times[0] > times[1] >= times[2]


def test_unverified_statements_are_those_that_the_network_meets() -> None:
    found = estimated("tesla-fsd-hw3")
    paths = [each.path for each in found.unverified]
    assert "numerics" in paths
    target = found.lowered.target
    unused = {each.name for each in target.constraints if not each.operators & {"conv2d", "relu", "add"}}
    assert not {f"constraints.{name}" for name in unused} & set(paths)


def test_target_without_cost_names_what_is_missing() -> None:
    target = load_target("tesla-fsd-hw3")
    missing = {Capability.COST: "memories.dram.bandwidth"}
    silent = replace(target, capabilities=target.capabilities - {Capability.COST}, missing=missing)
    with pytest.raises(ValueError, match=r"'tesla-fsd-hw3' does not serve cost: memories\.dram\.bandwidth"):
        estimate(lower(network(), silent))


def test_json_is_plain_and_joins_on_references() -> None:
    found = estimated("h200").to_json()
    again = json.loads(json.dumps(found))
    assert again["origin"] == "modelled"
    assert again["layers"][0]["writes"] == ["@0.0.0"]
    assert again["layers"][0]["source"] == "net.py:1"


def test_timeline_is_in_order_and_as_long_as_the_estimate(tmp_path: Path) -> None:
    found = estimated("tesla-fsd-hw3")
    trace = perfetto(found)
    computing = [event for event in trace["traceEvents"] if event.get("cat") == "compute"]
    ends = [event["ts"] + event["dur"] for event in computing]
    assert [event["ts"] for event in computing] == pytest.approx([0.0, *ends[:-1]])
    assert ends[-1] == pytest.approx(found.us)
    assert all(span.start_us >= 0 for span in spans(found))
    json.dumps(trace)
    draw(found, tmp_path / "timeline.svg")
    assert "<svg" in (tmp_path / "timeline.svg").read_text()
