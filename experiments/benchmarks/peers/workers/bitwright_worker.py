"""Our own side, under the same conditions as the peers: a process of its own, the same request, the same clock."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.export._trace  # torch loads it when something is first exported; nobody's imports are on the clock
from exchange import Quantized, Request, serve
from networks import load_network

from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.ptq import quantize as post_training_quantize


def load(request: Request) -> torch.nn.Module:
    """The float module."""
    return load_network(request.network, request.library)


def quantize(network: torch.nn.Module, request: Request) -> Quantized:
    """Capture, calibrate, quantize, export, with the defaults of the target that the method names."""
    captured = capture(network, (torch.zeros(1, 3, 224, 224),))
    images = (torch.from_numpy(request.image(index)) for index in range(request.count))
    file = Path(request.folder) / "quantized.onnx"
    export_onnx_qdq(post_training_quantize(captured, load_target(request.method).scheme(), images), file)
    return Quantized(file=str(file))


if __name__ == "__main__":
    serve(("bitwright", "torch"), load, quantize)
