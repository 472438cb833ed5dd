"""Blocks without mixed precision: captured as if the block were not there, each operator on the user's own line."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.graph import Graph

X = torch.randn(2, 4, 4)


class Inside(nn.Module):
    """All of it; `cumsum` makes capture trace the program once more, and two results leave the block."""

    def __init__(self, *, again: bool) -> None:
        super().__init__()
        self.again = again
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(device_type="cpu", enabled=False):
            y = self.linear(x)
            z = y @ x.transpose(-1, -2)
            if self.again:
                z = z.cumsum(-1)
        return z, y


class Between(nn.Module):
    """Two blocks, the second with another one inside."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device_type="cpu", enabled=False):
            y = x.exp()
        y = y + 1
        with torch.autocast(device_type="cpu", enabled=False):
            z = y * x
            with torch.autocast(device_type="cpu", enabled=False):
                z = z.tanh()
        return z - 1


def texts(graph: Graph) -> list[str]:
    own = Path(__file__).read_text().splitlines()
    for node in graph.nodes:
        assert node.source is not None and node.source.file == __file__
        assert own[node.source.line - 1].strip() == node.source.text
    return [node.source.text for node in graph.nodes if node.source]


@pytest.mark.parametrize("again", [False, True])
def test_operators_of_the_block_stand_on_their_lines(again: bool) -> None:
    model = Inside(again=again).eval()
    captured = capture(model, (X,))
    torch.testing.assert_close(captured.run(X), model(X))
    lines = ["y = self.linear(x)", *["z = y @ x.transpose(-1, -2)"] * 2, *["z = z.cumsum(-1)"] * again]
    assert texts(captured.graph) == lines
    assert captured.graph.nodes[0].module_path == "linear"


def test_blocks_one_after_the_other_and_one_in_the_other_compute_the_same() -> None:
    captured = capture(Between(), (X,))
    torch.testing.assert_close(captured.run(X), Between()(X))
    assert [node.op for node in captured.graph.nodes] == ["exp", "add", "mul", "tanh", "sub"]
