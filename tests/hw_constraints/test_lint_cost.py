"""What a finding costs: the time that the target's model gives to the call, and none where it has no model."""

from dataclasses import replace

import numpy as np
import pytest

from bitwright.hw_constraints.cost.estimate import estimate
from bitwright.hw_constraints.lint import lint
from bitwright.hw_constraints.lint_cost import costs_us
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.testing import GraphBuilder
from bitwright.quant.graph import Graph
from bitwright.quant.plan import plan


def network(side: int | None = 16) -> Graph:
    b = GraphBuilder()
    x = b.call("relu", b.input(1, 16, side, 16), shape=(1, 16, side, 16)) if side is None else b.input(1, 16, side, 16)
    if side is not None:
        x = b.call("relu", b.conv2d(x, 16), shape=(1, 16, side, 16))
        x = b.call("silu", b.conv2d(x, 16), shape=(1, 16, side, 16))
        x = b.conv2d(x, 16)
    graph = b.graph(x)
    generator = np.random.default_rng(0)
    return replace(graph, load=lambda ref: generator.normal(size=graph.tensors[ref].shape).astype(np.float32))


def test_every_call_has_the_time_of_what_it_runs_in() -> None:
    graph, target = network(), load_target("ethos-u85-1024")
    planned = plan(graph, target.scheme())
    costs = costs_us(graph, target, planned)
    assert set(costs) == {node.name for node in graph.nodes} and min(costs.values()) > 0
    assert costs["relu_1"] == costs["conv2d_0"], "they run as one"
    blocks = estimate(lower(graph, target, plan=planned))
    assert sum(costs.values()) - costs["relu_1"] == pytest.approx(blocks.us)


def test_findings_say_what_is_at_stake() -> None:
    graph, target = network(), load_target("ethos-u85-1024")
    planned = plan(graph, target.scheme())
    costs = costs_us(graph, target, planned)
    findings = lint(graph, target, plan=planned, cost_us=costs, rules=["unfused_activation"])
    assert [each.cost_us for each in findings] == [costs["silu_3"]]
    assert findings[0].to_json()["cost_origin"] == "modelled"


@pytest.mark.parametrize(("target", "side"), [("x86-vnni", 16), ("ethos-u85-1024", None)])
def test_without_a_model_or_a_size_there_are_none(target: str, side: int | None) -> None:
    graph, loaded = network(side), load_target(target)
    assert costs_us(graph, loaded, plan(graph, loaded.scheme())) == {}
