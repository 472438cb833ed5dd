"""Our `.tflite` files in Arm's Vela: everything of a network like MobileNet runs on the NPU, and nothing in float."""

import re
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("ai_edge_litert")

from bitwright.experiments.benchmarks import places
from bitwright.experiments.benchmarks.peers.vela import PEER, configurations
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.exporter import export_as
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Override

PYTHON = places.peers_home() / PEER / "bin" / "python"


class InvertedResiduals(nn.Module):
    """Stem, two inverted residuals, one of them with a gate, pool, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.expand, self.depthwise = nn.Conv2d(16, 48, 1), nn.Conv2d(48, 48, 3, padding=1, groups=48)
        self.project, self.gate = nn.Conv2d(48, 16, 1), nn.Conv2d(16, 16, 1)
        self.last, self.head = nn.Conv2d(16, 32, 3, 2, 1), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.project(F.relu6(self.depthwise(F.relu6(self.expand(x)))))
        x = x * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        return self.head(F.adaptive_avg_pool2d(F.hardswish(self.last(x)), 1).flatten(1))


pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="Vela's environment is not installed: make peers")


def quantized_for(target: str, *floats: str) -> QuantizedModel:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    exceptions = (Override(module=module, keep_float=True) for module in floats)
    scheme = load_target(target).scheme().with_overrides(*exceptions)
    return quantize(capture(InvertedResiduals().eval(), (x,)), scheme, [x, torch.randn(1, 3, 64, 64)])


def vela_says(quantized: QuantizedModel, target: str, folder: Path) -> str:
    file = export_as(quantized, folder / "net.tflite", "tflite_int8")[0]
    command = [str(PYTHON), "-m", "ethosu.vela", str(file), "--output-dir", str(folder), "--verbose-cycle-estimate"]
    ended = subprocess.run([*command, *configurations()[target]], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("target", ["ethos-u85-1024", "ethos-u55-128"])
def test_vela_puts_everything_on_the_npu(target: str, tmp_path: Path) -> None:
    said = vela_says(quantized_for(target), target, tmp_path)
    (npu,) = (line for line in said.splitlines() if line.startswith("NPU operators ="))
    assert "CPU operators = 0" in said and npu.endswith("(100.0%)"), said


@pytest.mark.parametrize("floats", [("last",), ("depthwise", "expand"), ("gate", "head")])
def test_the_lowering_has_on_the_host_what_vela_leaves_to_the_cpu(floats: tuple[str, ...], tmp_path: Path) -> None:
    target = "ethos-u85-1024"
    quantized = quantized_for(target, *floats)
    said = vela_says(quantized, target, tmp_path)
    left = re.findall(r"operator: (?:CONV_2D|DEPTHWISE_CONV_2D|FULLY_CONNECTED), ofm: '(\w+)@", said)
    program = lower(quantized.captured.graph, load_target(target), plan=quantized.plan)
    assert {op.block.module_path for op in program.ops if not op.block.on_accelerator} == set(left) == set(floats)
