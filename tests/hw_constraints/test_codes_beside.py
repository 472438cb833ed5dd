"""Float files with their scales beside them, through the eyes of the targets whose toolchains read them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bitwright.hw_constraints.lint import lint
from bitwright.hw_constraints.lint_onnx import lint_onnx
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.exporter import export_as
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.depthwise, self.head = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.erf(x + self.depthwise(x))  # which neither has
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def quantized_for(name: str) -> QuantizedModel:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 32, 32)
    return quantize(fold_batch_norm(capture(Net().eval(), (x,))), load_target(name).scheme(), [(x,)])


@pytest.mark.parametrize("name", ["hexagon-htp", "orin-dla", "tesla-fsd-hw3"])
def test_the_artefact_has_the_findings_and_the_lowering_of_its_plan(name: str, tmp_path: Path) -> None:
    target, quantized = load_target(name), quantized_for(name)
    path, *_ = export_as(quantized, tmp_path / "net.onnx", target.artifact.format)
    graph, plan = quantized.captured.graph, quantized.plan
    expected = lint(graph, target, plan=plan)
    assert expected
    assert sorted(lint_onnx(path, target), key=repr) == sorted(expected, key=repr)

    imported = graph_from_onnx(path)
    if "lower" not in target.capabilities:
        return
    ours = lower(imported.graph, target, plan=imported.plan_by(target.scheme()))
    theirs = lower(graph, target, plan=plan)
    assert [op.block.name for op in ours.ops] == [op.block.name for op in theirs.ops]
    assert ours.memory.peak_bytes == theirs.memory.peak_bytes
    assert ours.memory.constant_bytes == theirs.memory.constant_bytes
