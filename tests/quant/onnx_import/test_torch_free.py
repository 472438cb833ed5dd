"""Reading and linting an ONNX file needs no torch: it has to work on a machine that only has the file."""

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float

PROGRAM = """
import sys
sys.modules["torch"] = None  # an import of it would raise
from bitwright.hw_constraints.lint_onnx import lint_onnx
from bitwright.hw_constraints.target import load_target
print([finding.rule for finding in lint_onnx(sys.argv[1], load_target("ethos-u85-1024"))])
"""


def test_a_file_is_read_and_linted_without_torch(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3, bias=False))
    path = export_float(capture(model, (torch.randn(1, 3, 16, 16),)).graph, tmp_path / "model.onnx")
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")
