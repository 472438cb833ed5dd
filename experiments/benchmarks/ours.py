"""Our side of a comparison: the public functions, in the order in which a user calls them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bitwright.experiments.benchmarks.float_networks import example_inputs
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What Bitwright made.

    Attributes:
        model: the quantized network.
        file: its ONNX file.
        wall_s: from the float module to the file on disk.
    """

    model: QuantizedModel
    file: Path
    wall_s: float


def images_of(calibration: Path) -> Iterator[torch.Tensor]:
    """The images of a .npy one by one, float32 [1, 3, 224, 224], read as they are used."""
    for image in np.load(calibration, mmap_mode="r"):
        yield torch.from_numpy(np.array(image[None]))


def quantize_ours(network: torch.nn.Module, *, target: str, calibration: Path, file: Path) -> Ours:
    """Captures, calibrates, quantizes and exports with the defaults of a target.

    Args:
        network: float, in eval mode.
        target: whose scheme is used.
        calibration: .npy of the calibration images.
        file: where the ONNX file goes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    scheme = load_target(target).scheme()
    start = time.perf_counter()
    model = quantize(capture(network, example_inputs()), scheme, images_of(calibration))
    export_onnx_qdq(model, file)
    return Ours(model=model, file=file, wall_s=time.perf_counter() - start)
