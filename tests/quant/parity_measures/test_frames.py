"""Memory over many frames: a file that carries its state agrees, one that loses it is found at frame 2."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from bitwright.experiments.benchmarks import driving
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.parity import Inputs
from bitwright.quant.parity_measures import FrameDrift, compare_frames, frame_rounding_draws
from bitwright.quant.parity_measures.frames import CapturedFrames, FileFrames, ModuleFrames, Stateful
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import QuantScheme

COUNT = 12


class Memory(nn.Module):
    """Remembers a mean of what it saw, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("memory", torch.zeros(1, 4, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.conv(x).relu()
        self.memory.mul_(0.5).add_(0.5 * seen)
        return seen + self.memory


def frames_of(args: Sequence[torch.Tensor], count: int = COUNT) -> tuple[Inputs, ...]:
    """The first argument is the image, drawn anew for each frame; the others stay."""
    draw = torch.Generator().manual_seed(0)
    return tuple(Inputs(args=(torch.randn(args[0].shape, generator=draw), *args[1:])) for _ in range(count))


def file_frames(path: Path, captured: CapturedModel, *, wired: bool = True) -> FileFrames:
    """A file in ONNX Runtime; without wires the state is read from the file on each frame, as exporters lose it."""
    provenance = json.loads(path.with_suffix(".provenance.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wires = [(pair["input"], pair["output"]) for pair in provenance["state"]]
    names = [*provenance["outputs"], *(after for _, after in wires)] if wired else provenance["outputs"]

    def run(feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    inputs = [str(ref).removeprefix("$") for ref in captured.graph.inputs]
    return FileFrames(run, inputs=inputs, state=wires if wired else (), name="file")


@pytest.fixture(name="stream", scope="module")
def _stream() -> driving.DrivingNetwork:
    return driving.load("stream_petr")


@pytest.fixture(name="make", scope="module", params=["memory", pytest.param("stream_petr", marks=pytest.mark.slow)])
def _make(request: pytest.FixtureRequest, stream: driving.DrivingNetwork) -> tuple[nn.Module, tuple[Any, ...]]:
    if request.param == "stream_petr":
        return stream.model, stream.args
    torch.manual_seed(0)
    return Memory().eval(), (torch.zeros(1, 3, 8, 8),)


def drift(first: Stateful, second: Stateful, network: Any, frames: Sequence[Inputs]) -> FrameDrift:
    return compare_frames(first, second, frames, frame_rounding_draws(network, frames))


def test_a_sound_file_agrees_over_all_frames(make: tuple[nn.Module, tuple[Any, ...]], tmp_path: Path) -> None:
    module, args = make
    captured = capture(module, args)
    path = export_float(captured.graph, tmp_path / "model.onnx")
    frames = frames_of(args)
    eager = ModuleFrames(module)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    for second in (eager, file_frames(path, captured)):
        found = drift(CapturedFrames(captured), second, captured, frames)
        assert found.agrees, found.finding
        assert (len(found.curve), found.first_break, found.resets) == (COUNT, None, (True, True))
        assert found.state_matters == 2
    eager.close()
    assert all(torch.equal(buffer, before[name]) for name, buffer in module.named_buffers())


def test_a_lost_state_is_found_at_frame_two(make: tuple[nn.Module, tuple[Any, ...]], tmp_path: Path) -> None:
    module, args = make
    captured = capture(module, args)
    path = export_float(captured.graph, tmp_path / "model.onnx")
    found = drift(CapturedFrames(captured), file_frames(path, captured, wired=False), captured, frames_of(args))
    assert found.frames[0].agrees
    assert found.first_break == 2
    assert not found.agrees
    assert found.finding == "file gives from frame 2 on what the network gives without its memory: the state is lost"


def test_a_quantized_file_over_frames(tmp_path: Path, u8s8: QuantScheme) -> None:
    torch.manual_seed(0)
    args = (torch.zeros(1, 3, 8, 8),)
    captured = capture(Memory().eval(), args)
    frames = frames_of(args)
    quantized = quantize(captured, u8s8, [frame.args for frame in frames])
    path = export_onnx_qdq(quantized, tmp_path / "model.onnx")
    sound = drift(CapturedFrames(quantized), file_frames(path, captured), quantized, frames)
    lost = drift(CapturedFrames(quantized), file_frames(path, captured, wired=False), quantized, frames)
    assert sound.agrees, sound.finding
    assert lost.first_break == 2


class Altered(CapturedFrames):
    """What a runtime may do to a state: keep it for a frame too long, or over a reset."""

    def __init__(self, network: CapturedModel, change: Callable[["Altered"], None]) -> None:
        super().__init__(network, "altered")
        self.change, self.count, self.past = change, 0, []

    def step(self, inputs: Inputs) -> Mapping[str, Any]:
        self.count += 1
        self.past.append({name: value.clone() for name, value in self._state.items()})
        self.change(self)
        return super().step(inputs)


@pytest.fixture(name="memory")
def _memory() -> CapturedModel:
    torch.manual_seed(0)
    return capture(Memory().eval(), (torch.zeros(1, 3, 8, 8),))


def test_a_stale_state_is_no_lost_one(memory: CapturedModel) -> None:
    def stale(form: Altered) -> None:
        form._state.update(form.past[max(0, form.count - 3)])

    frames = frames_of((torch.zeros(1, 3, 8, 8),), 6)
    found = drift(CapturedFrames(memory), Altered(memory, stale), memory, frames)
    assert found.first_break is not None and found.first_break > 1
    assert "what it remembers is not what the network does" in found.finding


def test_a_reset_that_is_none(memory: CapturedModel) -> None:
    class Keeps(CapturedFrames):
        def reset(self) -> None:
            pass

    frames = frames_of((torch.zeros(1, 3, 8, 8),), 4)
    found = drift(CapturedFrames(memory), Keeps(memory, "keeps"), memory, frames)
    assert found.first_break is None
    assert found.resets == (True, False)
    assert "keeps does not come back to its first frame by a reset" in found.finding


def test_a_wrong_first_frame_is_not_the_memory(memory: CapturedModel) -> None:
    class Off(CapturedFrames):
        def step(self, inputs: Inputs) -> Mapping[str, Any]:
            return {name: value * np.float32(1.01) for name, value in super().step(inputs).items()}

    found = drift(CapturedFrames(memory), Off(memory, "off"), memory, frames_of((torch.zeros(1, 3, 8, 8),), 3))
    assert (found.first_break, found.finding) == (1, "off is wrong on the first frame already: not its memory")


def test_frames_that_do_not_show_the_memory_prove_nothing(memory: CapturedModel) -> None:
    frames = tuple(Inputs(args=(torch.full((1, 3, 8, 8), -1e4),)) for _ in range(3))
    with torch.no_grad():
        for value in memory.values.values():
            value.abs_()
    found = drift(CapturedFrames(memory), CapturedFrames(memory, "again"), memory, frames)
    assert found.first_break is None
    assert not found.agrees
    assert found.finding == "these frames do not show the memory: without it the results are the same"


def test_one_frame_is_too_few(memory: CapturedModel) -> None:
    frames = frames_of((torch.zeros(1, 3, 8, 8),), 1)
    with pytest.raises(InputError, match="frames = 1; a memory shows from the second frame on, so at least 2"):
        drift(CapturedFrames(memory), CapturedFrames(memory), memory, frames)
