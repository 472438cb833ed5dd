"""Our quantized networks beside their files in a runtime: layer by layer from its own codes, and end to end."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from bitwright.experiments.benchmarks.metrics import sqnr_db
from bitwright.hw_constraints.backends import get_backend
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.integer.deployed import LayerCodes, compare_codes
from bitwright.quant.integer.network import IntegerLayers
from bitwright.quant.quantized_model import QuantizedModel


def compared(
    model: QuantizedModel, file: Path, images: list[torch.Tensor], *, runtime: str = "onnxruntime"
) -> tuple[list[LayerCodes], dict[str, str]]:
    """Every layer's codes, and how far simulation and integer reference are from the file's logits, in dB.

    Args:
        model: the network.
        file: what was exported of it, with one output.
        images: arguments of `forward`, one by one.
        runtime: the backend that runs the file, with every tensor's codes as further outputs.
    """
    stored = onnx.load(file)
    made = {output for node in stored.graph.node for output in node.output}
    names = {ref: f"{value_name(ref)}/q" for ref in model.plan.activations if f"{value_name(ref)}/q" in made}
    (logits,) = (each.name for each in stored.graph.output)
    for name in names.values():
        stored.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    session = get_backend(runtime).load(stored.SerializeToString())
    layers: list[LayerCodes] = []
    ends: dict[str, list[np.ndarray[Any, Any]]] = defaultdict(list)
    for image in images:
        results = session.run({stored.graph.input[0].name: image.numpy()})
        layers += compare_codes(model, (image,), {ref: results[name] for ref, name in names.items()})
        ends["file"].append(results[logits])
        ends["simulation"].append(model.run(image).numpy())
        ends["integers"].append(model.run(image, transform=IntegerLayers(quantized=model)).numpy())
    file_logits = np.concatenate(ends["file"])
    distances = {who: sqnr_db(file_logits, np.concatenate(ends[who])).value for who in ("simulation", "integers")}
    return layers, {f"{who} against the file, dB": f"{value:.1f}" for who, value in distances.items()}


def by_rule(layers: list[LayerCodes]) -> dict[str, tuple[int, int, float]]:
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
