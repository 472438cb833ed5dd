"""A network read from its ONNX file is lowered to the same program as the captured one."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.onnx_import.fold_batch_norm import fold_batch_norms
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import plan
from bitwright.quant.ptq import quantize

TARGETS = ("ethos-u85-1024", "ethos-u55-128")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.BatchNorm2d(16), nn.Hardswish())
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.depthwise(x)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)).softmax(-1)


@pytest.mark.parametrize("name", TARGETS)
def test_a_float_file_is_lowered_as_the_network_is(name: str, tmp_path: Path) -> None:
    captured = capture(Small().eval(), (torch.randn(1, 3, 32, 32),))
    target, folded = load_target(name), fold_batch_norm(captured).graph
    expected = lower(folded, target, plan=plan(folded, target.scheme()))
    graph = fold_batch_norms(graph_from_onnx(export_float(captured.graph, tmp_path / "model.onnx")).graph)
    assert repr(lower(graph, target).ops) == repr(expected.ops)


@pytest.mark.parametrize("name", TARGETS)
def test_a_quantized_file_is_lowered_with_its_own_formats(name: str, tmp_path: Path) -> None:
    target = load_target(name)
    captured = fold_batch_norm(capture(Small().eval(), (torch.randn(1, 3, 32, 32),)))
    quantized = quantize(captured, target.scheme(), [torch.randn(1, 3, 32, 32)])
    expected = lower(quantized.captured.graph, target, plan=quantized.plan)
    imported = graph_from_onnx(export_onnx_qdq(quantized, tmp_path / "model.onnx"))
    found = lower(imported.graph, target, plan=imported.plan_by(target.scheme()))
    assert [op.name for op in found.ops] == [op.name for op in expected.ops]
    assert repr(found.ops) == repr(expected.ops)
