"""Recurrent layers as one ONNX operator each, and what stands around them when networks plan, against PyTorch."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float


class Whole(nn.Module):
    """Every result of a recurrent layer."""

    def __init__(self, kind: type[nn.RNNBase], **settings: Any) -> None:
        super().__init__()
        self.layer = kind(4, 5, **settings)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        states, last = self.layer(x)
        return [states * 2.0, *(part + 1.0 for part in (last if isinstance(last, tuple) else (last,)))]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize(
    ("layers", "both", "first", "bias"),
    [*product([1, 2], [False, True], [False, True], [True]), (1, False, False, False), (2, True, True, False)],
)
def test_the_file_computes_what_eager_pytorch_does(
    kind: type[nn.RNNBase],
    layers: int,
    both: bool,
    first: bool,
    bias: bool,
    tmp_path: Path,
    run_onnx: Callable[..., list[np.ndarray]],
) -> None:
    network = Whole(kind, num_layers=layers, bidirectional=both, batch_first=first, bias=bias).eval()
    x = torch.randn(3, 6, 4)
    path = export_float(capture(network, (x,)).graph, tmp_path / "float.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    assert sum(node.op_type in ("LSTM", "GRU") for node in onnx.load(path).graph.node) == layers
    for ran, expected in zip(run_onnx(path, {"x": x.numpy()}), network(x), strict=True):
        np.testing.assert_allclose(ran, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


class Cells(nn.Module):
    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.first, self.second = nn.GRUCell(4, 5, bias=bias), nn.LSTMCell(4, 5, bias=bias)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> list[torch.Tensor]:
        h = self.first(x, h)
        return [h * 2.0, *self.second(x, (h, h))]


@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_is_a_layer_of_one_step(bias: bool, tmp_path: Path, run_onnx: Callable[..., list[np.ndarray]]) -> None:
    network, args = Cells(bias=bias).eval(), (torch.randn(3, 4), torch.randn(3, 5))
    path = export_float(capture(network, args).graph, tmp_path / "float.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    for ran, expected in zip(
        run_onnx(path, dict(zip("xh", map(Tensor.numpy, args), strict=True))), network(*args), strict=True
    ):
        np.testing.assert_allclose(ran, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def sorted_and_repeated(x: torch.Tensor, index: torch.Tensor) -> list[torch.Tensor]:
    y = torch.addcmul(x, x, x + 1.0, value=0.5) + torch.addcdiv(x, x, x.abs() + 1.0)
    doubled = torch.where(x > 0, 1.0, 0.0)  # with equal values, whose order counts, too
    return [
        y,
        y.repeat_interleave(3, 1),
        y.repeat_interleave(2, dim=0),
        y.argsort(1, descending=True),
        doubled.argsort(stable=True, dim=-1),
        F.one_hot(index, 7) * 2,
    ]


def test_operators_of_planning_networks(tmp_path: Path, run_onnx: Callable[..., list[np.ndarray]]) -> None:
    class Network(nn.Module):
        def forward(self, x: torch.Tensor, index: torch.Tensor) -> list[torch.Tensor]:
            return sorted_and_repeated(x, index)

    args = (torch.randn(3, 8), torch.tensor([1, 6, 0]))
    path = export_float(capture(Network().eval(), args).graph, tmp_path / "float.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    for ran, expected in zip(
        run_onnx(path, {"x": args[0].numpy(), "index": args[1].numpy()}), sorted_and_repeated(*args), strict=True
    ):
        np.testing.assert_allclose(ran, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_what_onnx_cannot_say_is_refused(tmp_path: Path) -> None:
    captured = capture(Whole(nn.LSTM, proj_size=2).eval(), (torch.randn(3, 6, 4),))
    with pytest.raises(InputError, match="lstm with packed sequences or projected states has no ONNX translation"):
        export_float(captured.graph, tmp_path / "float.onnx")
