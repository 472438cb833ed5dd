"""What should become of SiLU in an int8 file for x86: float between codes, its parts in int8, or float behind a layer?

Three files of each network, timed against each other and the float one in one process, one thread. The weights are
seeded random ones: times hang on shapes alone. What the runtimes make of the files (`bitwright prove`):

- `as planned`, codes in front of SiLU and behind it: ONNX Runtime runs Sigmoid and Mul in float between conversions,
  OpenVINO one kernel between 8-bit tensors.
- `written out`, `x * sigmoid(x)` with codes between the two: QLinearSigmoid and QLinearMul; the same one kernel.
- `behind the layer`, no codes between a convolution and its SiLU: the convolution itself in float and then QuickGelu;
  a post-operation of the 8-bit convolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitwright.experiments.benchmarks.architectures import ARCHITECTURES, build
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.records import Record, record
from bitwright.hw_constraints.measure.files import measure_in_subprocess
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.passes.spell_activation import spell_activation
from bitwright.quant.ptq import quantize
from bitwright.quant.rewrite import Refused

ROW = "silu_x86"
RUNTIMES = ("onnxruntime", "openvino")
FLOAT, PLANNED, WRITTEN_OUT, BEHIND = "float", "as planned", "written out", "behind the layer"
MAX_SECONDS = 15.0
_SEED, _BATCHES = 0, 4


def run(bench: Bench) -> list[Record]:
    """Every network on every runtime; the ratio to the plan as it is."""
    torch.set_num_threads(1)
    records = []
    for name, model, args in _networks(bench):
        files = _files(name, fold_batch_norm(capture(model, args)), args, bench.ours / ROW)
        for runtime in RUNTIMES:
            measured = measure_in_subprocess(
                {kind: (file, runtime) for kind, file in files.items()}, threads=1, max_seconds=MAX_SECONDS
            )
            for kind in (WRITTEN_OUT, BEHIND, FLOAT):
                ratio = measured.ratio(kind, PLANNED)
                records.append(
                    record(
                        f"{ROW}.{name}.{runtime}.{kind.replace(' ', '_')}",
                        area="hw_constraints",
                        value=ratio.value,
                        unit=f"× the time of the file {PLANNED}",
                        n=ratio.rounds,
                        spread=(ratio.low, ratio.high),
                    )
                )
    return records


def _networks(bench: Bench) -> Iterator[tuple[str, nn.Module, tuple[Any, ...]]]:
    torch.manual_seed(_SEED)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2, 1), nn.SiLU()]
    for _ in range(6):
        layers += [nn.Conv2d(64, 64, 3, 1, 1), nn.SiLU()]
    yield "chain", nn.Sequential(*layers, nn.Conv2d(64, 8, 1)).eval(), (torch.randn(1, 3, 112, 112),)
    install_library(bench.home)
    known = {architecture.name: architecture for architecture in ARCHITECTURES}
    model, args = build(replace(known["efficientnet_b0"], size=224), bench.home / LIBRARY)
    yield "efficientnet_b0", model, args


def _files(name: str, captured: CapturedModel, args: tuple[Any, ...], folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    scheme = load_target("x86-vnni").scheme()
    fused = replace(scheme, fused_patterns=(*scheme.fused_patterns, ("conv2d", "silu")))
    files = {FLOAT: export_float(captured.graph, folder / f"{name}-float.onnx")}
    batches = [torch.randn_like(args[0]) for _ in range(_BATCHES)]
    for kind, network, asked in (
        (PLANNED, captured, scheme),
        (WRITTEN_OUT, _written_out(captured), scheme),
        (BEHIND, captured, fused),
    ):
        path = folder / f"{name}-{kind.replace(' ', '-')}.onnx"
        files[kind] = export_onnx_qdq(quantize(network, asked, batches), path)
    return files


def _written_out(captured: CapturedModel) -> CapturedModel:
    for node in captured.graph.nodes:
        if node.op == "silu":
            written = spell_activation(captured, node.name, form="sigmoid")
            assert not isinstance(written, Refused), written
            captured = written
    return captured
