"""Our quantized networks beside their files in ONNX Runtime: per layer, from the same codes, and end to end.

Given the runtime's own codes of a layer's operands, the named integer rule has to give the runtime's codes of its
result. End to end the simulation in floating point drifts from the file by single codes; how far is printed.
"""

from __future__ import annotations

from typing import Any

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.deployed import by_rule, compared
from bitwright.experiments.benchmarks.float_networks import float_network
from bitwright.experiments.benchmarks.ours import images_of, quantize_ours
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "deployed_codes"
NETWORKS = ("mobilenet_v2", "resnet18")
IMAGES = 4


def run(bench: Bench) -> list[Record]:
    """Shares of equal codes of every layer, and the logits' distances."""
    table: list[dict[str, Any]] = []
    least, elements = 100.0, 0
    for network in NETWORKS:
        ours = quantize_ours(
            float_network(network, bench.home),
            target="x86-vnni",
            calibration=bench.sample.calibration_file,
            file=bench.ours / ROW / f"{network}.onnx",
        )
        images = [image for image, _ in zip(images_of(bench.sample.scored_file), range(IMAGES), strict=False)]
        layers, ends = compared(ours.model, ours.file, images)
        for rule, shares in sorted(by_rule(layers).items()):
            unlike, total, worst = shares
            least, elements = min(least, worst), elements + total
            table.append({"network": network, "rule": rule, "codes": total, "unlike": unlike, "worst layer, %": worst})
        table.append({"network": network, **ends})
    return [
        record(
            f"{ROW}.worst_layer",
            area="parity",
            value=least,
            unit="% of a layer's codes equal",
            n=elements,
            reach=Reach("≥", 99.9),
            table=table,
        )
    ]
