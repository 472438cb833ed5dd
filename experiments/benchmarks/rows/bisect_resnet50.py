"""One fault in a file of ResNet-50, found by halves: how many partial runs of the file and how many seconds it takes.

Four single faults in float, each drawn at its own place by a seed, on two threads as the two processors of the machine
allow. Polygraphy's `debug reduce` halves a file as well; it takes a run for each cut and names no link.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from bitwright.experiments.benchmarks.architectures import ARCHITECTURES, build
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.parity_faults import KINDS
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.parity import Inputs
from bitwright.quant.parity.bisect import bisect_layers
from bitwright.quant.parity.torch_links import CapturedLink
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

ROW = "bisect_resnet50"
SEED = 50
FAULTS = ("padding on one side", "batch norm's epsilon", "activation fused away", "channels transposed")


def run(bench: Bench) -> list[Record]:
    """Plants and finds."""
    torch.set_num_threads(2)
    install_library(bench.home)
    module, args = build(next(each for each in ARCHITECTURES if each.name == "resnet50"), bench.home / LIBRARY)
    folded = fold_batch_norm(capture(module, args))
    with tempfile.TemporaryDirectory() as folder:
        source = export_float(folded.graph, Path(folder) / "float.onnx")
        lines = [_case(kind, number, folded, source, Inputs(args=args)) for number, kind in enumerate(FAULTS)]
    layers = int(lines[0]["layers"])
    most = math.floor(2 * math.log2(layers) + 5)
    return [
        record(
            f"{ROW}.runs",
            area="parity",
            value=max(line["partial runs"] for line in lines),
            unit=f"partial runs at most, of {layers} layers",
            n=len(lines),
            reach=Reach("≤", most),
            table=lines,
        ),
        record(
            f"{ROW}.seconds",
            area="parity",
            value=max(line["seconds"] for line in lines),
            unit="s at most, the file loaded and cut included",
            n=len(lines),
            reach=Reach("≤", 60),
        ),
        record(
            f"{ROW}.right",
            area="parity",
            value=100 * sum(line["right"] == "yes" for line in lines) / len(lines),
            unit="% of faults whose layer, and no other, is named",
            n=len(lines),
            reach=Reach("≥", 95),
        ),
    ]


def _case(kind: str, number: int, folded: CapturedModel, source: Path, inputs: Inputs) -> dict[str, Any]:
    model = onnx.load(source)
    plant = next(each.plant for each in KINDS if each.name == kind)
    tensor = plant(model, np.random.default_rng([SEED, number]))
    assert tensor is not None  # ResNet-50 has a place for each
    path = source.with_name("planted.onnx")
    onnx.save(model, path)
    path.with_suffix(".provenance.json").write_bytes(source.with_suffix(".provenance.json").read_bytes())
    begin = time.perf_counter()
    reference = CapturedLink(folded)
    found = bisect_layers(reference, OnnxRuntimeLink(path, "disabled"), inputs)
    return {
        "fault": kind,
        "planted in": tensor,
        "named": ", ".join(found.breaks) or "none",
        "right": "yes" if list(found.breaks) == [tensor] else "NO",
        "layers": len(reference.tensors),
        "partial runs": found.runs,
        "seconds": round(time.perf_counter() - begin, 1),
    }
