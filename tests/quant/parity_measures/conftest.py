"""Small networks with the operators at which deployments go wrong, and ONNX Runtime to be compared with."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

Run = Callable[..., dict[str, np.ndarray]]


class Segmenter(nn.Module):
    """Convolutions, batch norms, a pool, bilinear interpolation and a head, with seeded statistics."""

    def __init__(self, *, epsilon: float = 1e-5, padding: int = 1, align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.stem = self._block(3, 16, epsilon, padding)
        self.down = self._block(16, 32, epsilon, 1)
        self.head = nn.Conv2d(32, 4, 1)

    @staticmethod
    def _block(inputs: int, outputs: int, epsilon: float, padding: int) -> nn.Sequential:
        norm = nn.BatchNorm2d(outputs, eps=epsilon)
        assert norm.running_mean is not None and norm.running_var is not None
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        conv = nn.Conv2d(inputs, outputs, 3, 2, padding, bias=False)
        return nn.Sequential(conv, norm, nn.ReLU(inplace=True))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = F.max_pool2d(self.down(self.stem(x)), 2)
        x = F.interpolate(self.head(x), (24, 24), mode="bilinear", align_corners=self.align_corners)
        return {"depth": x, "weather": x.mean((2, 3)).softmax(1)}


@pytest.fixture
def segmenter() -> Callable[..., Segmenter]:
    """Makes one; all have the same weights."""

    def make(**settings: Any) -> Segmenter:
        torch.manual_seed(3)
        return Segmenter(**settings).eval()

    return make


@pytest.fixture(name="run_file")
def _run_file() -> Run:
    def run(
        path: Path, feeds: Mapping[str, Any], names: Sequence[str] = (), *, optimised: bool, threads: int = 1
    ) -> Any:
        options = onnxruntime.SessionOptions()
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        asked = list(names) or [each.name for each in session.get_outputs()]
        return dict(zip(asked, session.run(asked, dict(feeds)), strict=True))

    return run
