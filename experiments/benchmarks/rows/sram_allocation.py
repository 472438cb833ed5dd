"""How far is the peak of our placements from the smallest possible one, and does any placement overlap?

The buffers are the activations of captured networks with their lifetimes, and random ones. CP-SAT searches for the
optimum; where it cannot prove one in its time, its lower bound stands in, which can only make us look worse.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

from bitwright.experiments.benchmarks import driving
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.float_networks import example_inputs, float_network
from bitwright.experiments.benchmarks.peers.asking import ask
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.lower.allocate import Buffer, Placement, allocate, overlaps
from bitwright.quant.capture import CaptureError, capture
from bitwright.quant.graph import Graph

ROW = "sram_allocation"
LIMIT_S = 20.0  # of CP-SAT, for each graph
RANDOM_GRAPHS = 72
TORCHVISION = (
    *("alexnet", "vgg11", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "googlenet"),
    *("inception_v3", "squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *("mnasnet0_5", "mnasnet1_0", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "efficientnet_b0", "regnet_y_400mf"),
    *("regnet_x_400mf", "convnext_tiny"),
)


def run(bench: Bench) -> list[Record]:
    """Places every graph's buffers, asks CP-SAT for the optimum, once, and compares."""
    graphs = {**dict(_captured(bench)), **dict(_random_graphs())}
    placements: dict[str, Placement] = {}
    start = time.perf_counter()
    for name, buffers in graphs.items():
        placements[name] = allocate(buffers)
    took_s = time.perf_counter() - start
    asked = [[_as_numbers(buffer) for buffer in buffers] for buffers in graphs.values()]
    answer = ask("ortools", ROW, {"cases": asked, "limit_s": LIMIT_S}, home=bench.home, cache=bench.peers)
    clashes = sum(len(overlaps(buffers, placements[name].offsets)) for name, buffers in graphs.items())
    lines = [
        _line(name, graphs[name], placements[name], found) for name, found in zip(graphs, answer["cases"], strict=True)
    ]
    proven = sum(line["proven"] for line in lines)
    searched_s = sum(found["wall_s"] for found in answer["cases"])
    common: dict[str, Any] = {
        "area": "hw_constraints",
        "n": len(lines),
        "peers": {"ortools": answer["version"]},
        "table": sorted(lines, key=lambda line: -line["peak ÷ optimum"])[:20],
    }
    detail = f"{proven} of {len(lines)} proven, else ÷ bound; {took_s:.2f} s, CP-SAT {searched_s:.0f} s"
    worst = max(line["peak ÷ optimum"] for line in lines)
    return [
        record(f"{ROW}.worst", value=worst, unit=f"× optimum ({detail})", reach=Reach("≤", 1.05), **common),
        record(f"{ROW}.overlaps", value=float(clashes), unit="pairs of buffers", reach=Reach("=", 0.0), **common),
    ]


def _captured(bench: Bench) -> Iterator[tuple[str, list[Buffer]]]:
    """Networks of torchvision, and driving-style ones that capture whole."""
    for name in TORCHVISION:
        yield name, activations_of(capture(float_network(name, bench.home), example_inputs()).graph)
    for name in driving.names():
        network = driving.load(name)
        try:
            yield name, activations_of(capture(network.model, network.args).graph)
        except CaptureError:  # those that run by regions
            continue


def activations_of(graph: Graph) -> list[Buffer]:
    """Every computed tensor and every input at a byte an element, from the node that makes it to its last reader."""
    made = {ref: step for step, node in enumerate(graph.nodes) for ref in node.outputs}
    read = {ref: step for step, node in enumerate(graph.nodes) for ref in node.tensors}
    leaves = {*graph.outputs, *(after for _, after in graph.state)}
    arrives = [*graph.inputs, *(before for before, _ in graph.state)]
    end = len(graph.nodes)
    return [
        Buffer(
            name=str(ref),
            size_bytes=graph.tensors[ref].elements,
            first=made.get(ref, 0),
            last=end if ref in leaves else max(read.get(ref, 0), made.get(ref, 0)),
            alignment=16,
        )
        for ref in dict.fromkeys((*arrives, *made))
        if graph.tensors[ref].elements
    ]


def _random_graphs() -> Iterator[tuple[str, list[Buffer]]]:
    """From few crowded buffers to many scattered ones; sizes even, or skewed as in networks."""
    for seed in range(RANDOM_GRAPHS):
        chance = random.Random(seed)
        count, life = 10 + 5 * (seed % 12), chance.choice((3, 6, 12, 25))
        skewed = seed % 2
        buffers = []
        for index in range(count):
            size = int(2 ** chance.uniform(4, 16)) if skewed else chance.randint(1, 4096)
            first = chance.randrange(count)
            last = first + chance.randrange(life)
            buffers.append(Buffer(name=f"b{index}", size_bytes=size, first=first, last=last))
        yield f"random {seed}", buffers


def _as_numbers(buffer: Buffer) -> dict[str, int]:
    """CP-SAT works in units of the alignment, which only the networks' buffers have: sizes round up to it."""
    size = -(-buffer.size_bytes // buffer.alignment)
    return {"size_bytes": size, "first": buffer.first, "last": buffer.last}


def _line(name: str, buffers: list[Buffer], placement: Placement, found: dict[str, Any]) -> dict[str, Any]:
    grain = buffers[0].alignment
    peak = -(-placement.peak_bytes // grain)
    reference = found["peak"] if found["proven"] else found["bound"]
    return {
        "graph": name,
        "buffers": len(buffers),
        "peak": placement.peak_bytes,
        "CP-SAT": None if found["peak"] is None else found["peak"] * grain,
        "its bound": found["bound"] * grain,
        "proven": found["proven"],
        "peak ÷ optimum": peak / reference,
        "s, CP-SAT": found["wall_s"],
    }
