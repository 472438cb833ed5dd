"""Softmax results that are nearly all alike keep a scale that kernels in codes can compute with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bitwright.quant import softmax_scale
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, -1).reshape(-1)


def alike(length: int, scheme: QuantScheme) -> tuple[QuantizedModel, torch.Tensor]:
    """A softmax whose inputs span a few codes around zero."""
    x = torch.linspace(-0.02, 0.02, length)[None]
    return quantize(capture(Attention().eval(), (x,)), replace(scheme, quantize_outputs=True), [x]), x


@pytest.mark.parametrize("length", [16, 64, 196])
def test_a_softmax_of_like_inputs_is_computed_by_the_runtime_as_simulated(
    u8s8: QuantScheme, tmp_path: Path, run_onnx: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    quantized, x = alike(length, u8s8)
    scale = float(quantized.qparams[quantized.captured.graph.outputs[0]].scale)
    (found,) = run_onnx(export_onnx_qdq(quantized, tmp_path / "held.onnx"), {"x": x.numpy()}, optimize=True)
    assert abs(quantized.run(x).numpy() - found).max() <= 1.01 * scale
    assert found.min() > 0.9 / length

    monkeypatch.setattr(softmax_scale, "_RESERVE", 1e9)
    narrow, _ = alike(length, u8s8)
    (zeros,) = run_onnx(export_onnx_qdq(narrow, tmp_path / "narrow.onnx"), {"x": x.numpy()}, optimize=True)
    assert zeros.min() == 0.0, "the runtime computes narrow scales by now: the rule can go"


def test_codes_are_those_of_the_simulation_but_for_ties(
    u8s8: QuantScheme, tmp_path: Path, run_onnx: Callable[..., Any]
) -> None:
    """`floor(1 / scale)` moves no code where the reciprocal is whole; where it is not, one in a hundred and more."""
    x = torch.randn(400, 16) * 0.3
    scheme = replace(u8s8, quantize_outputs=True)
    quantized = quantize(capture(Attention().eval(), (x,)), scheme, [x], bias_correction=False)
    result = quantized.captured.graph.outputs[0]
    own = quantized.qparams[result].scale
    shares = []
    for scale in (own, 1 / (1 / own + 0.9)):
        qparams = {
            ref: each if each.scale != own else replace(each, scale=scale) for ref, each in quantized.qparams.items()
        }
        changed = replace(quantized, qparams=qparams)
        (found,) = run_onnx(export_onnx_qdq(changed, tmp_path / "codes.onnx"), {"x": x.numpy()}, optimize=True)
        shares.append(float((abs(changed.run(x).numpy() - found) > 0.5 * float(scale)).mean()))
    assert shares[0] < 1e-3 < 1e-2 < shares[1]


@settings(max_examples=300, deadline=None)
@given(st.floats(1e-6, 1.0), st.integers(2, 4096))
def test_reciprocals_are_whole_in_float32_and_scales_hardly_wider(scale: float, length: int) -> None:
    own = torch.tensor(scale, dtype=torch.float32)
    held = softmax_scale._whole_reciprocal(own, most=148.0 * length)
    reciprocal = float(np.float32(1) / np.float32(held))
    assert 1 <= np.floor(reciprocal) <= 148 * length
    assert abs(reciprocal - round(reciprocal)) <= 2**-22 * reciprocal
    narrowest = max(float(own), 1 / (148 * length))
    assert narrowest * (1 - 2**-22) <= float(held)
    assert float(held) * (1 - narrowest) <= narrowest * (1 + 2**-22)
