"""Our quantized networks beside their files in ONNX Runtime: per layer, from the same codes, and end to end.

Given the runtime's own codes of a layer's operands, the named integer rule has to give the runtime's codes of its
result. End to end the simulation in floating point drifts from the file by single codes; how far is printed.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
import torch

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.float_networks import float_network
from bitwright.experiments.benchmarks.metrics import sqnr_db
from bitwright.experiments.benchmarks.ours import images_of, quantize_ours
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.backends import get_backend
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.integer.deployed import LayerCodes, compare_codes
from bitwright.quant.integer.network import IntegerLayers
from bitwright.quant.quantized_model import QuantizedModel

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
        layers, ends = _compared(ours.model, onnx.load(ours.file), images)
        for rule, shares in sorted(_by_rule(layers).items()):
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


def _compared(
    model: QuantizedModel, stored: onnx.ModelProto, images: list[torch.Tensor]
) -> tuple[list[LayerCodes], dict[str, str]]:
    made = {output for node in stored.graph.node for output in node.output}
    names = {ref: f"{value_name(ref)}/q" for ref in model.plan.activations if f"{value_name(ref)}/q" in made}
    (logits,) = (each.name for each in stored.graph.output)
    for name in names.values():
        stored.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    session = get_backend("onnxruntime").load(stored.SerializeToString())
    layers: list[LayerCodes] = []
    ends: dict[str, list[np.ndarray[Any, Any]]] = defaultdict(list)
    for image in images:
        results = session.run({stored.graph.input[0].name: image.numpy()})
        layers += compare_codes(model, (image,), {ref: results[name] for ref, name in names.items()})
        ends["file"].append(results[logits])
        ends["simulation"].append(model.run(image).numpy())
        ends["integers"].append(model.run(image, transform=IntegerLayers(quantized=model)).numpy())
    file = np.concatenate(ends["file"])
    distances = {who: sqnr_db(file, np.concatenate(ends[who])).value for who in ("simulation", "integers")}
    return layers, {f"{who} against the file, dB": f"{value:.1f}" for who, value in distances.items()}


def _by_rule(layers: list[LayerCodes]) -> dict[str, tuple[int, int, float]]:
    """Codes that differ, all codes, and the share of equal ones in the worst layer, in percent."""
    found: dict[str, list[LayerCodes]] = defaultdict(list)
    for each in layers:
        found[each.rule].append(each)
    return {
        rule: (
            sum(each.unlike for each in members),
            sum(each.elements for each in members),
            min(100.0 * (1 - each.unlike / each.elements) for each in members),
        )
        for rule, members in found.items()
    }
