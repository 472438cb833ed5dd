"""Blocks are found from the graph: with a skip whole, without one by their module."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.ptq import quantize
from bitwright.quant.reconstruct.blocks import find_blocks
from bitwright.quant.reconstruct.layers import find_layers
from bitwright.quant.scheme import QuantScheme


class Inverted(nn.Module):
    """An inverted residual, with or without its skip."""

    def __init__(self, skip: bool) -> None:
        super().__init__()
        self.expand, self.depthwise = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.project, self.skip = nn.Conv2d(8, 4, 1), skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(self.depthwise(self.expand(x).relu()).relu())
        return x + y if self.skip else y


class Attention(nn.Module):
    """A transformer's block: two skips."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 4)
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        x = x + self.out((q @ k.transpose(-2, -1)).softmax(-1) @ v)
        return x + self.down(self.up(x).relu())


CASES = {
    "with skip": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Inverted(True), nn.Conv2d(4, 4, 1)),
        (1, 3, 8, 8),
        [["0"], ["2.expand", "2.depthwise", "2.project"], ["3"]],
    ),
    "without skip": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Inverted(False), Inverted(False)),
        (1, 3, 8, 8),
        [["0"], *([f"{i}.expand", f"{i}.depthwise", f"{i}.project"] for i in (2, 3))],
    ),
    "attention and MLP": (
        nn.Sequential(nn.Linear(5, 4), Attention(), nn.Linear(4, 2)),
        (1, 6, 5),
        [["0"], ["1.qkv", "1.out"], ["1.up", "1.down"], ["2"]],
    ),
    "a long chain": (
        nn.Sequential(*(part for _ in range(6) for part in (nn.Conv2d(3, 3, 1), nn.ReLU()))),
        (1, 3, 8, 8),
        [[str(index)] for index in range(0, 12, 2)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_blocks(case: str, u8s8: QuantScheme) -> None:
    module, shape, expected = CASES[case]
    captured = capture(module.eval(), (torch.zeros(shape),))
    quantized = quantize(captured, u8s8, [torch.randn(shape)], bias_correction=False)
    layers, _ = find_layers(quantized.captured, quantized.plan)
    blocks = find_blocks(quantized.captured, layers)
    assert [[layer.node.module_path for layer in block.layers] for block in blocks] == expected
    for before, after in pairwise(blocks):
        assert before.exit == after.entry and before.steps[1] == after.steps[0]


def test_what_crosses_the_network_is_no_cut(u8s8: QuantScheme) -> None:
    """Two results: the first stays alive beside everything behind it."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            first = self.a(x)
            return first, self.c(self.b(first).relu())

    captured = capture(Two().eval(), (torch.zeros(1, 3, 4, 4),))
    quantized = quantize(captured, u8s8, [torch.randn(1, 3, 4, 4)], bias_correction=False)
    blocks = find_blocks(quantized.captured, find_layers(quantized.captured, quantized.plan)[0])
    assert [[layer.node.module_path for layer in block.layers] for block in blocks] == [["a"]]
