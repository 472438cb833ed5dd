"""Any shape of any rank is reckoned with, or named with a reason; no operator crashes the model."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.hw_constraints.cost.estimate import estimate
from bitwright.hw_constraints.cost.ethos_u.estimate import network_cost
from bitwright.hw_constraints.cost.ethos_u.graph_reader import _READERS
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.testing import GraphBuilder

TARGETS = {name: load_target(name) for name in ("ethos-u55-128", "ethos-u65-512", "ethos-u85-1024")}
SHAPE = st.lists(st.sampled_from([1, 2, 3, 5, 16, 17, 40]), max_size=5).filter(lambda shape: math.prod(shape) < 50_000)
ELEMENTWISE = ("relu", "sigmoid", "silu", "hardswish", "gelu", "tanh", "clamp")


def broadcast(one, other):
    """As NumPy does it, or None."""
    width = max(len(one), len(other))
    pairs = list(zip((1,) * (width - len(one)) + one, (1,) * (width - len(other)) + other, strict=True))
    return tuple(map(max, pairs)) if all(a == b or 1 in (a, b) for a, b in pairs) else None


@st.composite
def networks(draw):
    """A few operators that have no weights, over tensors of any rank from 0 to 5."""
    net = GraphBuilder()
    start = tuple(draw(SHAPE))
    known = [(net.input(*start), start)]
    for _ in range(draw(st.integers(1, 6))):
        ref, shape = draw(st.sampled_from(known))
        other, beside = draw(st.sampled_from(known))
        kind = draw(st.sampled_from(("activation", "binary", "view", "mean", "cat", "input")))
        joint = broadcast(shape, beside)
        if kind == "activation":
            known.append((net.call(draw(st.sampled_from(ELEMENTWISE)), ref, shape=shape), shape))
        elif kind == "binary" and joint is not None:
            known.append((net.call(draw(st.sampled_from(("add", "mul"))), ref, other, shape=joint, alpha=1), joint))
        elif kind == "view":
            size = draw(st.sampled_from([(math.prod(shape),), (1, math.prod(shape)), (*shape, 1), (1, *shape)]))
            known.append((net.call("view", ref, shape=size, size=list(size)), size))
        elif kind == "mean":
            known.append((net.call("mean", ref, shape=(), dim=None, keepdim=False), ()))
        elif kind == "cat" and shape:
            axis = draw(st.integers(0, len(shape) - 1))
            size = tuple(2 * each if position == axis else each for position, each in enumerate(shape))
            known.append((net.call("cat", ref, ref, shape=size, dim=axis), size))
        else:
            known.append((net.input(*shape), shape))
    if not net.nodes:
        known.append((net.call("relu", known[0][0], shape=known[0][1]), known[0][1]))
    return net.graph(known[-1][0] if known[-1][0] not in net.inputs else net.nodes[-1].outputs[0])


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=60, deadline=None)
@given(graph=networks())
def test_odd_shapes_are_reckoned_or_named(target, graph):
    cost = network_cost(graph, TARGETS[target])
    assert all(each.reason for each in cost.unmodelled)
    assert {each.node.op for each in cost.unmodelled} >= {n.op for n in graph.nodes if n.op not in _READERS}
    elements = sum(math.prod(op.op.written.shape) for op in cost.ops)
    assert elements <= sum(math.prod(each.shape) for each in graph.tensors.values()) * 2  # a SiLU makes its gate, too
    assert all(op.cycles > 0 for op in cost.ops)
    found = estimate(lower(graph, TARGETS[target]))
    assert all(layer.us is not None for layer in found.layers if layer.engine in TARGETS[target].engines)


@pytest.mark.parametrize("target", TARGETS)
def test_a_mean_over_everything_is_a_scalar(target):
    net = GraphBuilder()
    x = net.call("relu", net.input(1, 16, 8, 8), shape=(1, 16, 8, 8))
    graph = net.graph(net.call("mean", x, shape=(), dim=None, keepdim=False))
    cost = network_cost(graph, TARGETS[target])
    assert [op.op.type for op in cost.ops] == ["relu"]
    assert [each.node.op for each in cost.unmodelled] == ["mean"]
    assert len(estimate(lower(graph, TARGETS[target])).layers) >= 2


SIBLINGS = {
    "no batch": ("max_pool2d", (16, 8, 8), (16, 4, 4), {"kernel_size": [2, 2], "stride": [2, 2]}, "3 axes; 4 are"),
    "enlarged": ("adaptive_avg_pool2d", (1, 16, 4, 4), (1, 16, 7, 7), {"output_size": [7, 7]}, "several sizes"),
    "uneven": ("adaptive_avg_pool2d", (1, 16, 8, 8), (1, 16, 3, 3), {"output_size": [3, 3]}, "several sizes"),
}


@pytest.mark.parametrize("name", SIBLINGS)
def test_windows_that_are_none_of_the_models_are_named(name):
    op, shape, result, attributes, reason = SIBLINGS[name]
    net = GraphBuilder()
    graph = net.graph(net.call(op, net.input(*shape), shape=result, **attributes))
    (unmodelled,) = network_cost(graph, TARGETS["ethos-u85-1024"]).unmodelled
    assert reason in unmodelled.reason


def test_layers_whose_weights_have_no_values_are_named():
    net = GraphBuilder()
    x = net.call("relu", net.conv2d(net.input(1, 3, 8, 8), 16), shape=(1, 16, 8, 8))
    (unmodelled,) = network_cost(net.graph(x), TARGETS["ethos-u55-128"]).unmodelled
    assert unmodelled.reason == "tensor p0 has no values in this graph"


def test_a_concatenation_is_of_channels_where_the_last_axis_is_the_channels():
    net = GraphBuilder()
    x = net.call("relu", net.input(1, 7, 16), shape=(1, 7, 16))
    y = net.call("cat", x, x, shape=(1, 14, 16), dim=1)
    z = net.call("cat", x, x, shape=(1, 7, 32), dim=2)
    unmodelled = network_cost(net.graph(y, z), TARGETS["ethos-u55-128"]).unmodelled
    assert [str(each.node.outputs[0]) for each in unmodelled] == [str(y)]
