"""Groups of weights whose size does not divide: run where the runtime takes a shorter one, else refused by name."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.run import run_recipe
from bitwright.hw_constraints.backends import get_backend
from bitwright.quant.errors import InputError

TARGET = """
id: groups
version: 1
description: x86-64 processors with weights of 4 bits in groups, computing in float.
extends: x86-vnni
artifact: {format: onnx_qdq, opset: 21, runtimes: [RUNTIME]}
numerics:
  activations: [{format: float32, symmetric: true}]
  weights: [{format: int4, symmetric: true, granularity: per_block, block_size: 48}]
  bias: float32
  float_formats: [float32]
  source: ort-docs
  verified: true
"""
CODE = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(96, 100), nn.ReLU(), nn.Linear(100, 4)).eval()

def data():
    return [(torch.randn(4, 96), torch.zeros(4, dtype=torch.int64)) for _ in range(8)]
"""


@pytest.fixture
def quantized_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def quantized(runtime: str) -> Path:
        module = f"groups_{tmp_path.name}"
        Path(f"{module}.py").write_text(CODE)
        Path("groups.yaml").write_text(TARGET.replace("RUNTIME", runtime))
        Path("r.yaml").write_text(
            f"name: t\ntarget: ./groups.yaml\nmodel: {{entry: {module}:network}}\ndata: {{entry: {module}:data}}\n"
        )
        run_recipe(load_recipe("r.yaml"), Path("run"), until="quantize", console=Console(quiet=True))
        return tmp_path / "run/stages/quantize/quantized.onnx"

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return quantized


def test_a_shorter_last_group_runs_where_the_runtime_takes_it(quantized_for: Callable[[str], Path]) -> None:
    file, x = quantized_for("onnxruntime"), torch.randn(4, 96).numpy()[:1]
    (name,) = (each.name for each in onnx.load(file).graph.input)
    expected = ReferenceEvaluator(str(file)).run(None, {name: x})[0]
    (found,) = get_backend("onnxruntime").load(file).run({name: x}).values()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("runtime", ["openvino", "tensorrt"])
def test_elsewhere_the_layer_is_named(runtime: str, quantized_for: Callable[[str], Path]) -> None:
    said = (
        "weight 2.weight of linear '2': block_size = 48 does not divide axis 1 of [4, 100]: the last group would be "
        f"shorter, which {runtime} of target 'groups' cannot run; take another block_size, or keep the layer in float "
        "by an override"
    )
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        quantized_for(runtime)


def test_openvino_really_refuses_such_a_file(quantized_for: Callable[[str], Path]) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(InputError, match=r"cannot be divided by block_size \(48\)"):
        get_backend("openvino").load(quantized_for("onnxruntime"))
