"""The first frame on which a network with memory is another one, and why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.parity import Inputs, LinkError
from bitwright.quant.parity.frame_by_frame import first_broken_frame, remembers
from bitwright.quant.parity.torch_links import CapturedLink, EagerLink, SimulationLink
from bitwright.quant.ptq import quantize

FRAMES = 5


class Memory(nn.Module):
    """Remembers a mean of what it saw, in place; beyond a brightness that only some frames have, it clips."""

    def __init__(self, clip: float = 1e9) -> None:
        super().__init__()
        self.conv, self.clip = nn.Conv2d(3, 4, 3, padding=1), clip
        self.register_buffer("memory", torch.zeros(1, 4, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.conv(x).relu().clamp(max=self.clip)
        self.memory.mul_(0.5).add_(0.5 * seen)
        return seen + self.memory


def network(clip: float = 1e9) -> Memory:
    torch.manual_seed(0)
    return Memory(clip).eval()


@pytest.fixture(name="frames")
def _frames() -> list[Inputs]:
    """The fourth is ten times as bright."""
    draw = torch.Generator().manual_seed(1)
    images = [torch.randn(1, 3, 8, 8, generator=draw) * (10 if place == 3 else 1) for place in range(FRAMES)]
    return [Inputs(args=(image,)) for image in images]


@pytest.fixture(name="captured")
def _captured() -> CapturedModel:
    return capture(network(), (torch.zeros(1, 3, 8, 8),))


def test_sound_forms_agree_on_every_frame(captured: CapturedModel, frames: list[Inputs], tmp_path: Path) -> None:
    quantized = quantize(captured, load_target("x86-vnni").scheme(), [each.args for each in frames])
    reference = CapturedLink(captured)
    assert remembers(reference, frames[0])
    for other in (
        EagerLink(network(), captured.graph),
        OnnxRuntimeLink(export_float(captured.graph, tmp_path / "float.onnx"), "disabled"),
        OnnxRuntimeLink(tmp_path / "float.onnx", "all"),
    ):
        assert first_broken_frame(reference, other, frames) is None
    file = OnnxRuntimeLink(export_onnx_qdq(quantized, tmp_path / "codes.onnx"), "all")
    assert first_broken_frame(SimulationLink(quantized), file, frames) is None


def test_memory_comes_through_the_links_as_through_the_module(captured: CapturedModel, frames: list[Inputs]) -> None:
    module, state = network(), {}
    for frame in frames:
        with torch.no_grad():
            expected = module(*frame.args).numpy()
        found = CapturedLink(captured).run(Inputs(args=frame.args, state=state))
        (result,), state = found.outputs.values(), found.state
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state["memory"], module.memory.numpy(), rtol=1e-5, atol=1e-6)


def test_the_frame_that_breaks_is_named_with_its_layer(captured: CapturedModel, frames: list[Inputs]) -> None:
    """Three frames agree, and the fourth leaves a range that the other form clips to."""
    clips = CapturedLink(capture(network(clip=8.0), (torch.zeros(1, 3, 8, 8),)), "clips")
    found = first_broken_frame(CapturedLink(captured), clips, frames)
    assert found is not None and found.frame == 4
    assert str(found).startswith("frame 4: @0.") and found.parity.breaks


def _lose(provenance: dict[str, Any], model: onnx.ModelProto) -> None:
    provenance["state"] = []


def _carry(provenance: dict[str, Any], model: onnx.ModelProto, value: str) -> None:
    """Another value goes out as the state."""
    (pair,) = provenance["state"]
    kept = [each for each in model.graph.output if each.name != pair["output"]]
    del model.graph.output[:]
    model.graph.output.extend([*kept, onnx.helper.make_empty_tensor_value_info("carried")])
    model.graph.node.append(onnx.helper.make_node("Identity", [value], ["carried"]))
    pair["output"] = "carried"


def _stale(provenance: dict[str, Any], model: onnx.ModelProto) -> None:
    """What goes out is what came in."""
    _carry(provenance, model, provenance["state"][0]["input"])


def _another(provenance: dict[str, Any], model: onnx.ModelProto) -> None:
    """Another tensor of the same shape goes out."""
    (relu,) = [node for node in model.graph.node if node.op_type == "Relu"]
    _carry(provenance, model, relu.output[0])


# Codes are judged by their layers: that another tensor goes out shows over frames (`compare_frames`).
@pytest.mark.parametrize(
    ("fault", "codes", "frame", "words"),
    [
        (_lose, False, 1, "memory is not carried over"),
        (_lose, True, 1, "memory is not carried over"),
        (_stale, False, 1, "memory is carried over off by"),
        (_stale, True, 2, "memory is carried over as it was before the frame"),
        (_another, False, 1, "memory is carried over off by"),
    ],
)
def test_a_state_that_does_not_come_through(
    captured: CapturedModel,
    frames: list[Inputs],
    tmp_path: Path,
    fault: Callable[[dict[str, Any], onnx.ModelProto], None],
    codes: bool,
    frame: int,
    words: str,
) -> None:
    path, reference = tmp_path / "model.onnx", CapturedLink(captured)
    if codes:
        quantized = quantize(captured, load_target("x86-vnni").scheme(), [each.args for each in frames])
        reference = SimulationLink(quantized)
        export_onnx_qdq(quantized, path)
    else:
        export_float(captured.graph, path)
    beside = path.with_suffix(".provenance.json")
    provenance, model = json.loads(beside.read_text()), onnx.load(path)
    fault(provenance, model)
    beside.write_text(json.dumps(provenance))
    onnx.save(model, path)
    found = first_broken_frame(reference, OnnxRuntimeLink(path, "disabled"), frames)
    assert found is not None and found.frame == frame
    assert words in str(found)


def test_a_module_without_that_buffer_is_said() -> None:
    link = EagerLink(nn.ReLU())
    with pytest.raises(LinkError, match="eager: has no buffer 'memory' to remember in"):
        link.run(Inputs(args=(torch.zeros(1),), state={"memory": np.zeros(1)}))
