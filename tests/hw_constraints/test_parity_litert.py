"""LiteRT as a link: the integer reference's codes by the names and in the layout of the network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("ai_edge_litert")

from bitwright.hw_constraints.parity_litert import LiteRTLink
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import export_as, provenance_of
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.integer.tflite import TFLITE
from bitwright.quant.parity import Inputs, LinkError, compare_links
from bitwright.quant.parity.torch_links import IntegerLink
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = x + F.relu(self.inner(x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory: pytest.TempPathFactory) -> tuple[QuantizedModel, Path, Inputs]:
    torch.manual_seed(0)
    batches = [(torch.randn(1, 3, 16, 12),) for _ in range(4)]
    quantized = quantize(capture(Network().eval(), batches[0]), load_target("arm-xnnpack").scheme(), batches)
    path = tmp_path_factory.mktemp("litert") / "network.tflite"
    export_as(quantized, path, "tflite_int8")
    return quantized, path, Inputs(args=batches[0])


def test_the_reference_kernels_are_the_integer_reference(made: Any) -> None:
    quantized, path, inputs = made
    link = LiteRTLink(path, "reference")
    found = compare_links(IntegerLink(quantized, arithmetic=TFLITE), link, [inputs])
    assert found.agrees and len(found.layers) >= 5


def test_a_wrong_weight_is_found_in_its_layer(made: Any, tmp_path: Path) -> None:
    quantized, _, inputs = made
    inner = quantized.captured.values[quantized.captured.value_refs[next(
        ref for ref in quantized.plan.weights if ref.module_path.startswith("inner")
    )]]  # fmt: skip
    inner.mul_(-1)
    try:
        export_as(quantized, wrong := tmp_path / "wrong.tflite", "tflite_int8")
    finally:
        inner.mul_(-1)
    breaks = compare_links(IntegerLink(quantized, arithmetic=TFLITE), LiteRTLink(wrong, "reference"), [inputs]).breaks
    assert [each.tensor.reads for each in breaks] == [("inner@0.0.0",)]  # its activation is fused behind it


def test_tensors_come_with_channels_second_and_as_real_values(made: Any) -> None:
    _, path, inputs = made
    link = LiteRTLink(path)
    recorded = link.run(inputs, wanted=tuple(link.tensors))
    assert {name: value.shape for name, value in recorded.tensors.items()} == {
        name: each.shape for name, each in link.tensors.items()
    }
    assert any(value.shape == (1, 8, 8, 6) for value in recorded.tensors.values())
    assert all(value.dtype == np.float32 for value in recorded.tensors.values())


def test_an_onnx_file_of_the_same_name_does_not_stand_in_the_way(made: Any, tmp_path: Path) -> None:
    """Each has a provenance of its own; one of before, when they shared the name, is read where it can be only ours."""
    quantized, _, inputs = made
    export_as(quantized, tmp_path / "quantized.tflite", "tflite_int8")
    export_float(quantized.captured.graph, tmp_path / "quantized.onnx")
    beside, shared = (tmp_path / f"quantized{end}provenance.json" for end in (".tflite.", "."))
    assert compare_links(
        IntegerLink(quantized, arithmetic=TFLITE), LiteRTLink(tmp_path / "quantized.tflite", "reference"), [inputs]
    ).agrees
    beside.rename(shared)
    assert provenance_of(tmp_path / "quantized.tflite") == beside  # the shared name is the ONNX file's
    (tmp_path / "quantized.onnx").unlink()
    assert provenance_of(tmp_path / "quantized.tflite") == shared
    link = LiteRTLink(tmp_path / "quantized.tflite")
    assert any(each.shape == (1, 8, 8, 6) for each in link.tensors.values()) and link.run(inputs).outputs


def test_xnnpack_gives_results_alone(made: Any) -> None:
    _, path, inputs = made
    link = LiteRTLink(path, "xnnpack")
    assert not link.tensors
    (found,), (expected,) = (each.run(inputs).outputs.values() for each in (link, LiteRTLink(path, "reference")))
    assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()


def test_unknown_kernels_and_another_number_of_tensors_are_said(made: Any) -> None:
    _, path, inputs = made
    with pytest.raises(
        InputError, match=r"unknown set of LiteRT kernels 'fast'; there are: builtin, reference, xnnpack"
    ):
        LiteRTLink(path, "fast")
    with pytest.raises(LinkError, match=r"takes 1 tensors \(.*\); the data have 2"):
        LiteRTLink(path).run(Inputs(args=(*inputs.args, *inputs.args)))


def test_what_is_no_file_of_litert_is_said(tmp_path: Path) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"no flatbuffer")
    with pytest.raises(LinkError, match=r"broken\.tflite: litert, kernels: builtin cannot load it: "):
        LiteRTLink(path)
