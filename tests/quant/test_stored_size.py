"""Sizes against what a file holds: the codes and scales that the exporter writes, counted byte by byte."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.formats import FORMATS
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme, ScaleKind
from bitwright.quant.stored_size import dtype_bits, element_bits, stored_bits

UINT8 = QParamsSpec(format=FORMATS["uint8"], symmetric=False)


def in_blocks(name: str, size: int, **more: Any) -> QParamsSpec:
    settings = {"symmetric": True, "granularity": Granularity.PER_BLOCK, "block_size": size, **more}
    return QParamsSpec(format=FORMATS[name], **settings)


@pytest.mark.parametrize(
    "spec",
    [
        in_blocks("int4", 32),
        in_blocks("int4", 40),  # the last block is shorter
        in_blocks("uint4", 16, symmetric=False),
        in_blocks("int8", 16),
    ],
    ids=str,
)
@pytest.mark.parametrize("layer", [nn.Linear(64, 96), nn.Conv2d(64, 8, 3), nn.ConvTranspose2d(64, 8, 2)], ids=str)
def test_codes_and_scales_of_blocks_are_those_in_a_file(spec: QParamsSpec, layer: nn.Module, tmp_path: Path) -> None:
    x = torch.randn(2, 64) if isinstance(layer, nn.Linear) else torch.randn(1, 64, 4, 4)
    operators = frozenset({"linear", "conv2d", "conv_transpose2d"})
    scheme = QuantScheme(name="blocks", activations=UINT8, weights=spec, quantized_operators=operators)
    quantized = quantize(capture(layer.eval(), (x,)), scheme, [(x,)], bias_correction=False)
    graph = quantized.captured.graph
    (weight,) = quantized.plan.weights
    file = onnx.load(export_onnx_qdq(quantized, tmp_path / "model.onnx"))
    held = {tensor.name: len(tensor.raw_data) for tensor in file.graph.initializer}
    parts = ["codes", "scale"] + ([] if spec.symmetric else ["zero_point"])
    expected = sum(held[f"{weight}/{part}"] for part in parts)
    assert stored_bits(graph, weight, element_bits("float32", spec), spec) == 8 * expected


@pytest.mark.parametrize(
    ("spec", "bits"),
    [
        (in_blocks("float4_e2m1fn", 32, scale_kind=ScaleKind.E8M0), 4.25),  # OCP Microscaling Formats 1.0: 32 · 4 + 8
        (in_blocks("float8_e4m3fn", 32, scale_kind=ScaleKind.E8M0), 8.25),
        (in_blocks("float4_e2m1fn", 16, scale_kind=ScaleKind.FLOAT8_E4M3), 4.5),  # NVFP4: 16 · 4 + 8
        (UINT8, 8.0),
        (None, 32.0),
    ],
    ids=str,
)
def test_bits_an_element_of_the_formats_definitions(spec: QParamsSpec | None, bits: float) -> None:
    graph = capture(nn.Linear(64, 96), (torch.randn(2, 64),)).graph
    weight = next(ref for ref in graph.tensors if str(ref) == "weight")
    assert stored_bits(graph, weight, element_bits("float32", spec), spec) == bits * 64 * 96


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [("bool", 8), ("float32", 32), ("bfloat16", 16), ("int64", 64), ("float8_e4m3fn", 8), ("complex64", 64)],
)
def test_bits_of_types(dtype: str, bits: int) -> None:
    assert dtype_bits(dtype) == bits
    assert getattr(torch, dtype).itemsize * 8 == bits
