"""How long do lowering and its estimate take: cold, after one layer has changed, and for up to 20,000 nodes?

The network is a captured MobileNetV2; capture does not count, as it does not for the tools that read a file. Cold means
that nothing remembers a loop nest, a block or a layer's weights. One layer has changed: its kernel is 5×5 instead of
3×3.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.float_networks import example_inputs, float_network
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.cost.estimate import estimate
from bitwright.hw_constraints.cost.ethos_u import memo as cost_memo
from bitwright.hw_constraints.lower import memo as lower_memo
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.target_types import Target
from bitwright.hw_constraints.testing import GraphBuilder
from bitwright.quant.capture import capture
from bitwright.quant.graph import Graph
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

ROW = "lower_speed"
NETWORK = "mobilenet_v2"
TARGETS = ("tesla-fsd-hw3", "amd-dpu", "ethos-u85-1024", "h200")
SIZES = (1_250, 2_500, 5_000, 10_000, 20_000)
ROUNDS = 5


def run(bench: Bench) -> list[Record]:
    """Every target by itself; the slowest has to reach it."""
    graph = fold_batch_norm(capture(float_network(NETWORK, bench.home), example_inputs())).graph
    changed = with_one_layer_changed(graph)
    table, cold, again = [], {}, {}
    for name in TARGETS:
        target = load_target(name)
        cold[name] = _seconds(lambda: _whole(graph, target), before=_forget)  # noqa: B023
        again[name] = _seconds(lambda: _whole(changed, target), before=lambda: _prepared(graph, target))  # noqa: B023
        table.append(
            {"target": name, "nodes": len(graph.nodes), "cold s": f"{cold[name]:.3f}", "again s": f"{again[name]:.4f}"}
        )
    slowest, latest = max(cold.values()), max(again.values())
    return [
        record(
            f"{ROW}.cold",
            area="hw_constraints",
            value=slowest,
            unit="s (slowest target)",
            n=ROUNDS,
            reach=Reach("≤", 1.0),
            table=table,
        ),
        record(
            f"{ROW}.one_layer_changed",
            area="hw_constraints",
            value=latest * 1e3,
            unit="ms (slowest target)",
            n=ROUNDS,
            reach=Reach("≤", 50.0),
            table=table,
        ),
        _growth(TARGETS[0]),
    ]


def _whole(graph: Graph, target: Target) -> Any:
    return estimate(lower(graph, target))


def _prepared(graph: Graph, target: Target) -> None:
    """Only the unchanged network is remembered."""
    _forget()
    _whole(graph, target)


def _forget() -> None:
    lower_memo.forget()
    cost_memo.forget()


def _seconds(act: Callable[[], Any], before: Callable[[], Any]) -> float:
    times = []
    for _ in range(ROUNDS):
        before()
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return median(times)


def with_one_layer_changed(graph: Graph) -> Graph:
    """The network with a 5×5 kernel in its last depthwise layer."""
    layers = [node for node in graph.nodes if node.op == "conv2d" and node.attributes["groups"] > 1]
    last = layers[-1]
    weight = graph.tensors[last.tensors[1]]
    tensors = {**graph.tensors, weight.ref: replace(weight, shape=(*weight.shape[:2], 5, 5))}
    wider = replace(last, attributes={**last.attributes, "padding": (2, 2)})
    nodes = tuple(wider if node is last else node for node in graph.nodes)
    return replace(graph, nodes=nodes, tensors=tensors, load=_widened(graph, weight.ref))


def _widened(graph: Graph, changed: Any) -> Callable[[Any], Any]:
    def load(ref: Any) -> Any:
        import numpy as np

        values = graph.array(ref)
        return np.pad(values, [(0, 0), (0, 0), (1, 1), (1, 1)]) if ref == changed else values

    return load


def inverted_residuals(nodes: int) -> Graph:
    """A chain of inverted residuals with skips, at least so many operator calls."""
    net = GraphBuilder()
    x = net.conv2d(net.input(1, 3, 16, 16), 16)
    wide, narrow = (1, 32, 16, 16), (1, 16, 16, 16)
    while len(net.nodes) < nodes:
        y = net.call("relu", net.conv2d(x, 32, 1), shape=wide)
        y = net.call("relu", net.conv2d(y, 32, 3, groups=32), shape=wide)
        x = net.call("add", x, net.conv2d(y, 16, 1), shape=narrow, alpha=1)
    return net.graph(x)


def _growth(name: str) -> Record:
    """Seconds by size; the figure is how much longer 16 times the nodes take, beside n·log n."""
    import math

    target = load_target(name)
    table, times = [], []
    for size in SIZES:
        graph = inverted_residuals(size)
        start = time.perf_counter()
        _whole(graph, target)
        times.append(time.perf_counter() - start)
        table.append({"nodes": len(graph.nodes), "seconds": f"{times[-1]:.2f}"})
    growth = SIZES[-1] * math.log(SIZES[-1]) / (SIZES[0] * math.log(SIZES[0]))
    return record(
        f"{ROW}.growth",
        area="hw_constraints",
        value=times[-1] / times[0] / growth,
        unit=f"× n·log n from {SIZES[0]:,} to {SIZES[-1]:,} nodes ({name})",
        n=1,
        reach=Reach("≤", 1.25),
        table=table,
    )
