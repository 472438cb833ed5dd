"""Runtimes of other Pythons in `bitwright parity`: which are started for what, and what says that none is there."""

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bitwright.experiments.console import Console
from bitwright.experiments.parity_command import Asked, compare_sides
from bitwright.experiments.parity_runtimes import Runtimes, with_other_pythons
from bitwright.hw_constraints.backends import get_backend
from bitwright.quant.errors import InputError

PYTHON = Path(__file__).parents[2] / ".peers" / "executorch" / "bin" / "python"
BUILD = """
import sys, torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
for name in sys.argv[1:]:
    program = to_edge_transform_and_lower(torch.export.load(f"{name}.pt2"), partitioner=[XnnpackPartitioner()])
    open(f"{name}.pte", "wb").write(program.to_executorch().buffer)
"""
NETWORK = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))
"""


def refused(first: str, second: str | None, asked: Asked) -> str:
    with pytest.raises(InputError) as caught:
        compare_sides(first, second, asked, console=Console(quiet=True))
    return str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("executorch") is not None, reason="ExecuTorch is installed")
def test_a_program_without_executorch_says_what_to_install() -> None:
    assert refused("a.pte", None, Asked()) == (
        "a.pte: needs ExecuTorch: pip install 'bitwright[executorch]', or --runtime PYTHON that has it"
    )


@pytest.mark.skipif(get_backend("tensorrt").available() is None, reason="TensorRT can be used here")
def test_without_tensorrt_it_is_said_before_anything_runs(tmp_path: Path) -> None:
    reason = get_backend("tensorrt").available()
    says = f"needs TensorRT, and {reason}: pip install 'bitwright[tensorrt]' on a machine with a CUDA device"
    assert refused("nowhere.onnx", None, Asked(tensorrt=True)) == f"--tensorrt: {says}"
    engine = tmp_path / "a.plan"
    assert refused(str(engine), None, Asked()) == f"{engine}: no such file"
    engine.write_bytes(b"engine")
    assert refused(str(engine), None, Asked()) == f"{engine}: {says}"


def test_a_runtime_that_no_side_can_use_is_refused() -> None:
    says = "--runtime x: neither side is a file that it could run (.onnx, .pte) or a run"
    assert refused("a:b", "c.tflite", Asked(runtimes=("x",))) == says


def test_a_place_without_any_useful_runtime_is_refused(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack, pytest.raises(InputError, match="nor a folder with onnxruntime in it"):
        with_other_pythons(Runtimes(levels=("all",)), (str(tmp_path),), ("a.onnx",), stack)


@pytest.mark.slow
def test_a_program_is_a_side(tmp_path: Path) -> None:
    """The Python has ONNX Runtime as well, so both kinds of files run there."""
    if not PYTHON.is_file():
        pytest.skip("ExecuTorch is not in .peers/executorch")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)).eval()
    for name in ("sound", "broken"):
        torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 3, 3),)), tmp_path / f"{name}.pt2")
        network[0].weight.data[1] *= 1.5
    subprocess.run([PYTHON, "-c", BUILD, "sound", "broken"], check=True, capture_output=True, cwd=tmp_path)
    (tmp_path / "small.py").write_text(NETWORK)
    for name, code in (("sound", 0), ("broken", 1)):
        command = [sys.executable, "-m", "bitwright.experiments.cli", "parity", "small:build", f"{name}.pte"]
        command += ["--input", "1x3x3x3", "--runtime", str(PYTHON), "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        assert f"batch norms folded → {name}.pte in ExecuTorch " in done.stdout
    assert "at 3@0.0.0" in done.stdout  # what leaves the one delegate
