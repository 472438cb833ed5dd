"""How near do modelled cycles of a 96 x 96 weight-stationary array come to those that ZigZag finds?

Both read the same machine, each its own file of it in `peers/zigzag`. ZigZag reads the network as an ONNX file and
tries loop orders layer by layer, with every operand in DRAM before and after; so do we here, from the captured graph.
Layers that multiply nothing are none of ZigZag's.
"""

from __future__ import annotations

import time
from math import prod
from pathlib import Path
from typing import Any

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.layer_nests import layers_of
from bitwright.experiments.benchmarks.peers import asking
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.cost.array import nest_cycles
from bitwright.hw_constraints.lower.tile import Tiling, choose_tiling
from bitwright.hw_constraints.lower.tile_cost import TileMachine
from bitwright.hw_constraints.lower.work import Work
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.target_types import Target

ROW = "zigzag_array"
NETWORKS = ("resnet18", "squeezenet1_1", "resnet50", "vgg16", "googlenet")
FILES = Path(asking.__file__).parent / "zigzag"
HARDWARE, MAPPING, TARGET = (FILES / name for name in ("array96.yaml", "mapping.yaml", "array96_target.yaml"))


def run(bench: Bench) -> list[Record]:
    """Asks ZigZag for each network, once, and reckons the same layers."""
    target = load_target(TARGET)
    lines, layers, version = [], 0, ""
    for network in NETWORKS:
        answer = ask_zigzag(bench, network)
        version = answer["version"]
        works = layers_of(bench, network, target)
        start = time.perf_counter()
        ours = network_cycles(works, target)
        took_s = time.perf_counter() - start
        layers += len(works)
        lines.append(_line(network, works, ours, took_s, answer))
    worst = max(abs(line["difference %"]) for line in lines)
    return [
        record(
            f"{ROW}.worst_network",
            area="hw_constraints",
            value=worst,
            unit="% of ZigZag's cycles",
            n=len(NETWORKS),
            reach=Reach("≤", 15.0),
            peers={"zigzag-dse": version},
            table=lines,
        ),
        record(
            f"{ROW}.layers_unlike",
            area="hw_constraints",
            value=float(sum(line["MACs, ZigZag"] != line["MACs"] for line in lines)),
            unit="networks with other MACs than in ZigZag's reading of the ONNX file",
            n=layers,
            reach=Reach("=", 0.0),
        ),
    ]


def ask_zigzag(bench: Bench, network: str) -> dict[str, Any]:
    """ZigZag's cycles, by layer."""
    file = bench.float_file(network)
    request = {"file": str(file), "hardware": str(HARDWARE), "mapping": str(MAPPING)}
    files = (file, HARDWARE, MAPPING)
    return asking.ask("zigzag", network, request, home=bench.home, cache=bench.peers, files=files)


def network_cycles(works: list[Work], target: Target) -> float:
    """Cycles of all layers, each by itself."""
    engine, memories = target.engines["npu"], target.memories
    # One buffer as large as ZigZag's two: weights wait in registers there.
    room = sum(memories[name].size_bytes or 0 for name in ("sram", "weight_registers"))
    total = 0.0
    for work in works:
        machine = TileMachine.of(engine, memories["sram"], memories["dram"], work.kind, room=room)
        tiling = choose_tiling(work, machine)
        assert isinstance(tiling, Tiling), tiling
        total += nest_cycles(work, tiling, dict(machine.unroll)).total
    return total


def _line(network: str, works: list[Work], ours: float, took_s: float, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "network": network,
        "layers": len(works),
        "MACs": sum(work.macs for work in works),
        "MACs, ZigZag": sum(prod(layer["loops"].values()) for layer in answer["layers"]),
        "cycles": round(ours),
        "cycles, ZigZag": round(answer["cycles"]),
        "difference %": 100 * (ours / answer["cycles"] - 1),
        "ms": 1e3 * took_s,
        "ms, ZigZag": 1e3 * answer["wall_s"],
    }
