"""Networks of any number of layers with what rules look at: residual sums, gates, concatenations, attention."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from bitwright.quant.capture import capture
from bitwright.quant.graph import Graph
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

CHANNELS = 32
SIDE = 16


class _Block(nn.Module):
    """Six layers: an inverted bottleneck with a gate, and a branch that is concatenated."""

    layers = 6

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, 2 * channels, 1), nn.BatchNorm2d(2 * channels), nn.ReLU6())
        depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(2 * channels), nn.SiLU())
        self.reduce = nn.Conv2d(2 * channels, 8, 1)
        self.widen = nn.Conv2d(8, 2 * channels, 1)
        self.project = nn.Conv2d(2 * channels, channels // 2, 1)
        self.branch = nn.Conv2d(channels, channels // 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(self.expand(x))
        y = y * torch.sigmoid(self.widen(functional.relu(self.reduce(y.mean((2, 3), keepdim=True)))))
        return x + torch.cat([self.project(y), functional.relu(self.branch(x))], 1)


class _Attention(nn.Module):
    """Four layers: attention over positions, between transposes."""

    layers = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        scores = self.query(tokens) @ self.key(tokens).transpose(1, 2)
        attended: torch.Tensor = self.out(scores.softmax(-1) @ self.value(tokens))
        return x + attended.transpose(1, 2).reshape(x.shape)


def layered_network(layers: int) -> Graph:
    """A captured network with at least so many layers with weights, batch norms folded."""
    torch.manual_seed(0)
    blocks: list[nn.Module] = [nn.Conv2d(3, CHANNELS, 3, padding=1)]
    count = 1
    while count < layers:
        block = _Attention(CHANNELS) if len(blocks) % 5 == 0 else _Block(CHANNELS)
        blocks.append(block)
        count += block.layers
    return fold_batch_norm(capture(nn.Sequential(*blocks), (torch.randn(1, 3, SIDE, SIDE),))).graph
