"""Scales of blocks come back from a file as the plan had them, and their network as the simulation computes it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.formats import FORMATS
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.onnx_import.to_captured import to_quantized
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme, ScaleKind

UINT8 = QParamsSpec(format=FORMATS["uint8"], symmetric=False)


def in_blocks(name: str, size: int, kind: ScaleKind = ScaleKind.FLOAT32, *, symmetric: bool = True) -> QParamsSpec:
    return QParamsSpec(
        format=FORMATS[name],
        symmetric=symmetric,
        granularity=Granularity.PER_BLOCK,
        block_size=size,
        scale_kind=kind,
    )


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(32, 16, 3), nn.Linear(64, 40)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.conv(x).flatten(1))


@pytest.mark.parametrize(
    "spec",
    [
        in_blocks("int4", 32),
        in_blocks("int4", 24),  # the last block is shorter
        in_blocks("uint4", 16, symmetric=False),
        in_blocks("int8", 32, ScaleKind.E8M0),
        in_blocks("float8_e4m3fn", 32, ScaleKind.E8M0),
        in_blocks("float4_e2m1fn", 16, ScaleKind.FLOAT8_E4M3),
    ],
    ids=str,
)
def test_blocks_come_back(spec: QParamsSpec, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 32, 4, 4)
    operators = frozenset({"linear", "conv2d"})
    scheme = QuantScheme(name="blocks", activations=UINT8, weights=spec, quantized_operators=operators)
    quantized = quantize(capture(Two().eval(), (x,)), scheme, [(x,)], bias_correction=False)
    imported = graph_from_onnx(export_onnx_qdq(quantized, tmp_path / "model.onnx"))
    assert imported.plan is not None
    assert imported.plan.weights == quantized.plan.weights
    assert imported.plan.scheme.weights == spec
    for ref, expected in quantized.qparams.items():
        known = imported.qparams[ref]
        assert known.axis == expected.axis
        np.testing.assert_array_equal(known.scale, expected.scale.numpy())
        np.testing.assert_array_equal(known.zero_point, expected.zero_point.numpy())
    again, _ = to_quantized(imported)
    with torch.no_grad():
        torch.testing.assert_close(again.run(x), quantized.run(x), rtol=0, atol=0)


@pytest.mark.parametrize(("shape", "block"), [((8, 2), 16), ((8, 4), 8), ((4, 2), 32), ((8, 64), 1)])
def test_scales_of_other_blocks_leave_the_node_as_it_is(shape: tuple[int, int], block: int, tmp_path: Path) -> None:
    codes = numpy_helper.from_array(np.zeros((8, 64), np.int8), "codes")
    scale = numpy_helper.from_array(np.ones(shape, np.float32), "scale")
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["weight"], axis=1, block_size=block),
        helper.make_node("Gemm", ["x", "weight"], ["y"], transB=1),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n]) for name, n in (("x", 64), ("y", 8))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [codes, scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "model.onnx")
    imported = graph_from_onnx(tmp_path / "model.onnx")
    assert "scales for other blocks" in imported.kept.values()
