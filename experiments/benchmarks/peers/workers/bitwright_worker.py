"""Our own side, under the same conditions as the peers: a process of its own, the same request, the same clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.export._trace  # torch loads it when something is first exported; nobody's imports are on the clock
from exchange import Quantized, Request, serve
from networks import load_network

from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.formats import FORMATS
from bitwright.quant.graph import Graph
from bitwright.quant.ptq import quantize as post_training_quantize
from bitwright.quant.scheme import Override, QuantScheme

# What follows the target in a method, and what it means.
INT4 = "int4"
DEPTHWISE_INT8 = "depthwise_int8"
EQUALIZED = "equalized"
ALONE = "alone"


def load(request: Request) -> torch.nn.Module:
    """The float module."""
    return load_network(request.network, request.library)


def quantize(network: torch.nn.Module, request: Request) -> Quantized:
    """Capture, calibrate, quantize, export.

    The method is a target, alone with all defaults; with `int4` for the weights, with `depthwise_int8` for those of
    depthwise layers, and last `equalized` or a rounding, which brings equalization with it where that helps, unless it
    is `alone`: `x86-vnni,int4,gptq`, `x86-vnni,int4,alone,gptq`.
    """
    target, *wishes = request.method.split(",")
    captured = capture(network, (torch.zeros(request.shape),))
    images = (torch.from_numpy(request.image(index)) for index in range(request.count))
    scheme = load_target(target).scheme()
    if INT4 in wishes:
        scheme = in_four_bits(scheme, captured.graph, depthwise_int8=DEPTHWISE_INT8 in wishes)
    options: dict[str, Any] = {}
    if wishes and wishes[-1] == EQUALIZED:
        options = {"equalization": True}
    elif wishes:
        options = {"equalization": False if ALONE in wishes else "auto", "rounding": wishes[-1]}
    file = Path(request.folder) / "quantized.onnx"
    export_onnx_qdq(post_training_quantize(captured, scheme, images, **options), file)
    return Quantized(file=str(file))


def in_four_bits(scheme: QuantScheme, graph: Graph, *, depthwise_int8: bool) -> QuantScheme:
    """All weights in int4 per channel, with the range of the least squared error; depthwise layers as they were."""
    four = replace(scheme.weights, format=FORMATS["int4"], observer="mse")
    depthwise = [node.module_path for node in graph.nodes if node.attributes.get("groups", 1) > 1]
    kept = [Override(module=path, weights=scheme.weights) for path in depthwise if depthwise_int8]
    return replace(scheme, weights=four, operator_weights={}).with_overrides(*kept)


if __name__ == "__main__":
    serve(("bitwright", "torch"), load, quantize)
