"""What stood between driving networks and ONNX: operators against eager PyTorch, in ONNX Runtime and by definition."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator
from torch import nn

from bitwright.experiments.benchmarks import driving
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.parity import Inputs
from bitwright.quant.parity_measures import judge_outputs, rounding_draws

Run = Callable[..., list[np.ndarray]]


def _written_over(x: torch.Tensor) -> torch.Tensor:
    canvas = torch.zeros(4, 6)
    canvas += torch.ones(6)
    canvas[:, :2] = x[:, :2]
    canvas[:, 3:] += x[:, 2:]
    return canvas


INDEX = torch.tensor([0, 2, 2, 1])
OPERATORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "atan2": lambda x: torch.atan2(x, x.flip(0)),
    "atan2 on the axes": lambda x: torch.atan2(x.sign() * (x.abs() > 0.5), (x * 2).round().flip(0)),
    "floor of integers": lambda x: (x * 9).long() // 4,
    "floor of integers by negative ones": lambda x: torch.div((x * 9).long(), -3, rounding_mode="floor"),
    "integers towards zero": lambda x: torch.div((x * 9).long(), 4, rounding_mode="trunc"),
    "any": lambda x: (x > 1.5).any(),
    "any along an axis": lambda x: (x > 1).any(-1, keepdim=True),
    "any of numbers": lambda x: (x * 2).round().any(1),
    "all": lambda x: (x > -1).all(0),
    "index_add": lambda x: x.index_add(0, INDEX, x * 2),
    "index_add of columns": lambda x: torch.zeros(4, 3).index_add(1, torch.tensor([2, 0, 2, 1, 0]), x),
    "copy": _written_over,
    "trilinear": lambda x: F.interpolate(x.view(1, 2, 1, 2, 5), size=(3, 4, 7), mode="trilinear"),
    "trilinear, corners": lambda x: F.interpolate(
        x.view(1, 1, 2, 2, 5), size=(3, 5, 9), mode="trilinear", align_corners=True
    ),
}


class Alone(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name: str, tmp_path: Path, run_onnx: Run) -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    path = export_float(capture(Alone(OPERATORS[name]).eval(), (x,)).graph, tmp_path / "float.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    expected = OPERATORS[name](x).numpy()
    (ran,), (defined,) = run_onnx(path, {"x": x.numpy()}), ReferenceEvaluator(str(path)).run(None, {"x": x.numpy()})
    for found in (ran, defined):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "centernet",
        "lane_anchors",
        "occupancy",
        "planner_transformer",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("stereo_cost_volume", "trans_fusion")),
    ],
)
def test_whole_networks(name: str, tmp_path: Path, run_onnx: Run) -> None:
    network = driving.load(name)
    captured = capture(network.model, network.args)
    path = export_float(captured.graph, tmp_path / "float.onnx")
    names = [each.name for each in onnx.load(path, load_external_data=False).graph.input]
    results = run_onnx(path, {key: arg.numpy() for key, arg in zip(names, network.args, strict=True)})
    # Rounding moves what a top-k chooses: judged as every form of a network is.
    draws = rounding_draws(captured, Inputs(args=network.args))
    verdicts = judge_outputs(draws.clean, dict(zip(draws.clean, results, strict=True)), draws)
    assert [each.reason for each in verdicts if not each.agrees] == []


@pytest.mark.parametrize("name", ["calibrated_lift", "lss_bev"])
def test_an_inverse_of_a_matrix_is_what_onnx_has_no_operator_for(name: str, tmp_path: Path) -> None:
    """`fix` writes the inverse of small matrices out (`passes/closed_form_inverse.py`)."""
    network = driving.load(name)
    with pytest.raises(InputError, match=r"no ONNX translation for these operators:\s+inverse \(\S+\)$"):
        export_float(capture(network.model, network.args).graph, tmp_path / "float.onnx")
