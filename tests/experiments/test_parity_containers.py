"""Networks whose results come in containers, are empty or no numbers: eager, captured and exported compute the same."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from bitwright.experiments.console import Console
from bitwright.experiments.parity_command import Asked, compare_sides
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float


@dataclass
class Scene:
    features: torch.Tensor
    scores: torch.Tensor


class Pair(NamedTuple):
    features: torch.Tensor
    scores: torch.Tensor


Contain = Callable[[torch.Tensor, torch.Tensor], Any]
CONTAINERS: dict[str, Contain] = {
    "dict": lambda features, scores: {"features": features, "scores": scores},
    "tuple_in_list": lambda features, scores: (features, [scores, {"twice": scores * 2}]),
    "named_tuple": Pair,
    "dataclass": Scene,
    "dataclass_in_dict": lambda features, scores: {"scene": Scene(features, scores)},
    "nothing_in_one": lambda features, scores: (scores, features[:, :0]),
    "nan_in_both": lambda features, scores: (scores, torch.log(-scores.abs() - 1)),
}


class Contained(nn.Module):
    def __init__(self, contain: Contain) -> None:
        super().__init__()
        self.contain, self.conv, self.head = contain, nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        features = torch.relu(self.conv(x))
        return self.contain(features, self.head(features.mean((2, 3))))


@pytest.mark.parametrize("name", CONTAINERS)
def test_all_forms_agree(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = Contained(CONTAINERS[name]).eval()
    file = tmp_path / "float.onnx"
    export_float(capture(network, (torch.randn(1, 3, 12, 12),)).graph, file)
    module = tmp_path / f"container_{name}.py"
    module.write_text("build = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    __import__(module.stem).build = lambda: network
    found = compare_sides(f"{module.stem}:build", str(file), Asked(shapes=("1x3x12x12",)), console=Console(quiet=True))
    assert found.agrees
    assert len(found.chain.pairs) >= 3
