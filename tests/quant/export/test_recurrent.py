"""Recurrent layers as one ONNX operator each, against eager PyTorch."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

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
@pytest.mark.parametrize(("layers", "both", "first"), product([1, 2], [False, True], [False, True]))
@pytest.mark.parametrize("bias", [True, False])
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


def test_what_onnx_cannot_say_is_refused(tmp_path: Path) -> None:
    captured = capture(Whole(nn.LSTM, proj_size=2).eval(), (torch.randn(3, 6, 4),))
    with pytest.raises(InputError, match="lstm with packed sequences or projected states has no ONNX translation"):
        export_float(captured.graph, tmp_path / "float.onnx")
