"""A pass of ONNX Runtime that breaks a file is named: here one of its own faults, a softmax in codes that overflows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.hw_constraints.parity_passes import bisect_opsets, bisect_passes, passes_of
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.parity import Inputs, compare_links
from bitwright.quant.parity.link import LinkError
from bitwright.quant.parity.regions import bisect_region
from bitwright.quant.parity.torch_links import SimulationLink
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        weights = torch.softmax(self.second(x).flatten(2) * 1e-3, -1)
        return weights @ x.flatten(2).transpose(1, 2)


@pytest.fixture(scope="module")
def sound() -> QuantizedModel:
    torch.manual_seed(0)
    images = [(torch.randn(1, 3, 8, 8),) for _ in range(4)]
    return quantize(capture(Attention().eval(), images[0]), load_target("x86-vnni").scheme(), images)


@pytest.fixture(scope="module")
def overflowing(sound: QuantizedModel) -> QuantizedModel:
    """With a scale of the softmax so narrow that the runtime's kernel overflows (`quant/softmax_scale.py`)."""
    softmax = next(node.outputs[0] for node in sound.captured.graph.nodes if node.op == "softmax")
    own = sound.qparams[softmax]
    return replace(sound, qparams={**sound.qparams, softmax: replace(own, scale=own.scale / 3)})


@pytest.fixture
def inputs() -> list[Inputs]:
    return [Inputs(args=(torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(7)),))]


def test_the_pass_that_breaks_a_file_is_named(overflowing: QuantizedModel, inputs: Any, tmp_path: Path) -> None:
    file = export_onnx_qdq(overflowing, tmp_path / "narrow.onnx")
    found = bisect_passes(SimulationLink(overflowing), file, inputs)
    assert [each.name for each in found.culprits] == ["QDQSelectorActionTransformer"]
    assert {each.tensor.op for each in found.culprits[0].parity.breaks} == {"softmax"}
    assert found.steps == len(passes_of(file)) and found.comparisons <= 2 * (found.steps.bit_length() + 2)
    without = OnnxRuntimeLink(file, "all", without=["QDQSelectorActionTransformer"])
    assert compare_links(SimulationLink(overflowing), without, inputs).agrees


def test_no_pass_breaks_a_sound_file(sound: QuantizedModel, inputs: Any, tmp_path: Path) -> None:
    file = export_onnx_qdq(sound, tmp_path / "sound.onnx")
    found = bisect_passes(SimulationLink(sound), file, inputs)
    assert not found.culprits and found.comparisons == 1 and found.steps > 3


def test_a_wrong_file_is_not_the_optimisers_fault(
    sound: QuantizedModel, overflowing: Any, inputs: Any, tmp_path: Path
) -> None:
    file = export_onnx_qdq(overflowing, tmp_path / "other.onnx")
    assert not bisect_passes(SimulationLink(sound), file, inputs).culprits


def test_newer_opsets_compute_the_same(sound: QuantizedModel, inputs: Any, tmp_path: Path) -> None:
    file = export_onnx_qdq(sound, tmp_path / "sound.onnx")
    found = bisect_opsets(file, inputs, newest=22)
    assert not found.culprits


def test_an_opset_that_the_runtime_lacks_is_found(sound: QuantizedModel, inputs: Any, tmp_path: Path) -> None:
    file = export_onnx_qdq(sound, tmp_path / "sound.onnx")
    (culprit,) = bisect_opsets(file, inputs, newest=99).culprits
    assert culprit.name.startswith("opset ") and culprit.parity.problem


def test_a_break_that_hangs_on_a_corner_is_found_there(sound: QuantizedModel, tmp_path: Path) -> None:
    """Saturation: one bright corner leaves the range of one side alone."""
    x = torch.zeros(1, 3, 8, 8)
    x[..., 6:, :2] = 3.0
    first = next(node.outputs[0] for node in sound.captured.graph.nodes if node.op == "relu")
    own = sound.qparams[first]
    clipped = replace(sound, qparams={**sound.qparams, first: replace(own, scale=own.scale)})
    link = SimulationLink(clipped, "clipping")
    original = link.quantized.transform

    def transform(ref: Any, tensor: torch.Tensor) -> torch.Tensor:
        return original(ref, tensor.clamp(max=1.0) if ref == first else tensor)

    object.__setattr__(link.quantized, "transform", transform)
    found = bisect_region(SimulationLink(sound), link, [Inputs(args=(x,))], str(first), 0)
    assert found is not None and found.rows[0] >= 4 and found.columns[1] <= 4
    assert str(found).startswith("input 0: rows ") and found.runs <= 2 * 6


def test_a_file_that_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(LinkError, match=r"no\.onnx: ONNX Runtime cannot load it"):
        passes_of(tmp_path / "no.onnx")
