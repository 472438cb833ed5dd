"""Every kind of fault is one: the file stays valid, and what readers of the named value get is something else."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bitwright.experiments.benchmarks.parity_faults import KINDS, Kind
from bitwright.experiments.benchmarks.rows.planted_faults import Prepared, _value
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.parity import Inputs
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize


class Everything(nn.Module):
    """A place for every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.clamp = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU6())
        self.pool, self.gate = nn.MaxPool2d(3, 2, 1), nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.norm, self.gelu = nn.LayerNorm(16), nn.GELU()
        self.query, self.head = nn.Linear(16, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.clamp(30 * x)
        x = self.pool(x) * self.gate(self.pool(x))
        x = torch.cat([x, -x], 1)
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        x = self.norm(x.flatten(2).transpose(1, 2))
        q = self.query(x)
        x = torch.softmax(q @ x.transpose(1, 2), -1) @ x
        return self.head(self.gelu(x))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("faults")
    torch.manual_seed(0)
    module = Everything().eval()
    images = [(torch.randn(1, 3, 8, 8),) for _ in range(4)]
    captured = capture(module, images[0])
    folded = fold_batch_norm(captured)
    quantized = quantize(captured, load_target("x86-vnni").scheme(), images)
    export_float(folded.graph, folder / "float.onnx")
    export_onnx_qdq(quantized, folder / "quantized.onnx")
    return Prepared(
        name="everything",
        module=module,
        captured=captured,
        folded=folded,
        quantized=quantized,
        folder=folder,
        inputs=(Inputs(args=images[0]),),
    )


def _model(network: Prepared, kind: Kind) -> onnx.ModelProto:
    folder: Path = network.folder
    return onnx.load(folder / ("quantized.onnx" if kind.file == "quantized" else "float.onnx"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_fault_changes_the_value_that_it_names(network: Prepared, kind: Kind) -> None:
    model = _model(network, kind)
    value = kind.plant(model, np.random.default_rng(0))
    assert value is not None, "the network has a place for every kind"
    onnx.checker.check_model(model)
    assert not np.array_equal(_value(model, value, network), _value(_model(network, kind), value, network))


def test_there_are_enough_kinds() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 15
    assert {kind.file for kind in KINDS} == {"float", "quantized", "passed"}
