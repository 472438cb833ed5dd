"""Is the closed form of systolic compute cycles exactly what SCALE-Sim counts, cycle by cycle?

Every distinct layer of two networks. SCALE-Sim knows no groups: it runs one group of a depthwise layer, and so does the
comparison. Oblong arrays and the third dataflow are in `tests/hw_constraints/cost/test_systolic.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.layer_nests import layers_of
from bitwright.experiments.benchmarks.peers.asking import ask
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.cost.systolic import systolic_cycles
from bitwright.hw_constraints.lower.work import Work
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.target_hardware import Dataflow

ROW = "scalesim_cycles"
NETWORKS = ("resnet18", "squeezenet1_1")
DATAFLOWS = {
    "ws": Dataflow.WEIGHT_STATIONARY,
    "os": Dataflow.OUTPUT_STATIONARY,
    "is": Dataflow.INPUT_STATIONARY,
}
ARRAYS = (("ws", 128, 128), ("os", 96, 96))
TARGET = "tesla-fsd-hw3"  # any that runs convolutions: only the nests are used


def run(bench: Bench) -> list[Record]:
    """Asks SCALE-Sim for each network's layers, once, and compares cycle by cycle."""
    target = load_target(TARGET)
    lines, version = [], ""
    for network in NETWORKS:
        works = layers_of(bench, network, target)
        layers = list(dict.fromkeys(replace(work, groups=1) for work in works))
        request = {
            "layers": [as_numbers(layer) for layer in layers],
            "arrays": [{"dataflow": name, "rows": rows, "columns": columns} for name, rows, columns in ARRAYS],
        }
        answer = ask("scalesim", network, request, home=bench.home, cache=bench.peers)
        version = answer["version"]
        for (name, rows, columns), counted in zip(ARRAYS, answer["cycles"], strict=True):
            ours = [systolic_cycles(layer, DATAFLOWS[name], rows, columns) for layer in layers]
            lines.append(_line(network, f"{name} {rows} × {columns}", ours, counted, works, layers))
    return [
        record(
            f"{ROW}.layers_unlike",
            area="hw_constraints",
            value=float(sum(line["unlike"] for line in lines)),
            unit="layers",
            n=sum(line["layers"] for line in lines),
            reach=Reach("=", 0.0),
            peers={"scalesim": version},
            table=lines,
        )
    ]


def as_numbers(layer: Work) -> list[int]:
    """As SCALE-Sim's topology file has a layer: sizes of the input with padding, and without what no window reaches."""
    if layer.y.stride != layer.x.stride and 1 not in (layer.y.output, layer.x.output):
        raise ValueError(f"SCALE-Sim has one stride for both axes; the layer has {layer.y.stride} and {layer.x.stride}")
    height, width = layer.y.span(layer.y.output), layer.x.span(layer.x.output)
    stride = layer.y.stride if layer.y.output > 1 else layer.x.stride
    return [height, width, layer.y.kernel, layer.x.kernel, layer.in_channels, layer.out_channels, stride]


def _line(
    network: str, array: str, ours: list[int], counted: list[int], works: list[Work], layers: list[Work]
) -> dict[str, Any]:
    by_layer = dict(zip(layers, counted, strict=True))
    return {
        "network": network,
        "array": array,
        "layers": len(layers),
        "unlike": sum(one != other for one, other in zip(ours, counted, strict=True)),
        "cycles of the network": sum(work.groups * by_layer[replace(work, groups=1)] for work in works),
    }
