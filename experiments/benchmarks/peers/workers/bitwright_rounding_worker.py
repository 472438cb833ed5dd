"""Our own rounding methods, each on a network quantized in the same formats: logits of its file, and what it took."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.export._trace  # torch loads it when something is first exported; nobody's imports are on the clock
from exchange import Request
from networks import load_network

from bitwright.experiments.benchmarks.onnx_logits import onnx_logits
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.formats import FORMATS
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme

PLAIN = "plain"


def rounded(request: Request) -> QuantizedModel:
    """The network by `x86-vnni,int4,uint8,gptq`: target, weights, activations, and a rounding or `plain`."""
    target, weights, activations, rounding = request.method.split(",")
    captured = capture(load_network(request.network, request.library), (torch.zeros(request.shape),))
    images = (torch.from_numpy(request.image(index)) for index in range(request.count))
    scheme = in_formats(load_target(target).scheme(), weights, activations)
    return quantize(captured, scheme, images, rounding=None if rounding == PLAIN else rounding)


def in_formats(scheme: QuantScheme, weights: str, activations: str) -> QuantScheme:
    """Every layer in these formats; weights with the range of the least squared error, as plain rounding needs it."""
    return replace(
        scheme,
        weights=replace(scheme.weights, format=FORMATS[weights], observer="mse"),
        activations=replace(scheme.activations, format=FORMATS[activations]),
        operator_weights={},
    )


def main() -> None:
    """Answers `{logits, cpu_s}`; seconds of the processor, which others on the machine do not lengthen."""
    request = Request(**json.loads(Path(sys.argv[1]).read_text()))
    start = time.process_time()
    quantized = rounded(request)
    cpu_s = time.process_time() - start
    folder = Path(request.folder)
    file, logits = export_onnx_qdq(quantized, folder / "quantized.onnx"), folder / "logits.npy"
    np.save(logits, onnx_logits(file, Path(request.scored)))
    Path(sys.argv[2]).write_text(json.dumps({"logits": str(logits), "cpu_s": cpu_s}, indent=1))


if __name__ == "__main__":
    main()
