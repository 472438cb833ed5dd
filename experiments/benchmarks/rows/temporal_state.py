"""A temporal model over 200 frames in ONNX Runtime: its drift frame by frame, and a lost state found at the second.

StreamPETR's memory, in the driving-style networks' version, in float32 and in W8A8. The file carries its state as
inputs and outputs; for the fault they are left unwired, as exporters lose a buffer that `forward` changes. ONNX Runtime
stays below the level at which it computes softmaxes in codes: its kernel is wrong on these (row `clean_chains`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime
import torch

from bitwright.experiments.benchmarks import driving
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.parity import Inputs
from bitwright.quant.parity_measures import FrameDrift, compare_frames, frame_rounding_draws
from bitwright.quant.parity_measures.frames import CapturedFrames, FileFrames
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel

ROW = "temporal_state"
NETWORK = "stream_petr"
FRAMES, CALIBRATION = 200, 20
SHOWN = (1, 2, 3, 5, 10, 20, 50, 100, 150, 200)


def run(bench: Bench) -> list[Record]:
    """Runs both formats, each with and without its wires."""
    torch.set_num_threads(1)
    network = driving.load(NETWORK)
    captured = capture(network.model, network.args)
    frames = _frames(network.args)
    quantized = quantize(captured, load_target("x86-vnni").scheme(), [frame.args for frame in frames[:CALIBRATION]])
    records = []
    with tempfile.TemporaryDirectory() as folder:
        float_file = export_float(captured.graph, Path(folder) / "float.onnx")
        codes = export_onnx_qdq(quantized, Path(folder) / "codes.onnx")
        records += _records("float32", captured, captured, float_file, frames)
        records += _records("w8a8", quantized, captured, codes, frames)
    return records


def _frames(args: tuple[Any, ...]) -> tuple[Inputs, ...]:
    """Images drawn anew; there is something to remember from the second frame on."""
    draw = torch.Generator().manual_seed(0)
    image, exists, pose = args
    return tuple(
        Inputs(args=(torch.randn(image.shape, generator=draw), torch.full_like(exists, float(number > 0)), pose))
        for number in range(FRAMES)
    )


def _records(
    name: str, network: CapturedModel | QuantizedModel, captured: CapturedModel, file: Path, frames: tuple[Inputs, ...]
) -> list[Record]:
    draws = frame_rounding_draws(network, frames)
    sound = compare_frames(CapturedFrames(network), _form(file, captured, wired=True), frames, draws)
    lost = compare_frames(CapturedFrames(network), _form(file, captured, wired=False), frames, draws)
    return [
        record(
            f"{ROW}.{name}_sound",
            area="parity",
            value=sum(not each.agrees for each in sound.frames),
            unit="frames of a sound file called broken",
            n=FRAMES,
            reach=Reach("=", 0),
            table=_curve(sound),
        ),
        record(
            f"{ROW}.{name}_lost",
            area="parity",
            value=lost.first_break or 0,
            unit="the frame at which a lost state is found",
            n=FRAMES,
            reach=Reach("=", 2),
            table=[*_curve(lost), {"finding": lost.finding}],
        ),
    ]


def _form(path: Path, captured: CapturedModel, *, wired: bool) -> FileFrames:
    provenance = json.loads(path.with_suffix(".provenance.json").read_text(encoding="utf-8"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wires = [(pair["input"], pair["output"]) for pair in provenance["state"]] if wired else []
    names = [*provenance["outputs"], *(after for _, after in wires)]

    def run(feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    inputs = [str(ref).removeprefix("$") for ref in captured.graph.inputs]
    return FileFrames(run, inputs=inputs, state=wires, name="file" if wired else "file without its wires")


def _curve(drift: FrameDrift) -> list[dict[str, Any]]:
    verdicts = {number: each for number, each in enumerate(drift.frames, 1) if number in SHOWN}
    return [
        {"frame": number, "expected": each.expected, "allowed": each.allowed, "seen": each.seen, "of": each.name}
        for number, each in verdicts.items()
    ]
