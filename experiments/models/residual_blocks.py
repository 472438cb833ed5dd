"""Residual networks for 32×32 pictures (He et al. 2016, arXiv:1512.03385, section 4.2), with projections as shortcuts.

Plain PyTorch and nothing else, so that a process without this toolkit can build the network from this file.
"""

from __future__ import annotations

import torch
from torch import nn

CHANNELS = (16, 32, 64)  # of the three groups; the second and third begin with stride 2


class ConvBN(nn.Sequential):
    """Convolution and batch norm, with the padding that keeps the size at stride 1."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is a 1×1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = ConvBN(inputs, outputs, stride=stride)
        self.inner = nn.ReLU()
        self.second = ConvBN(outputs, outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else ConvBN(inputs, outputs, kernel=1, stride=stride)
        self.outer = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y: torch.Tensor = self.outer(self.second(self.inner(self.first(x))) + self.shortcut(x))
        return y


class ResNet(nn.Module):
    """A 3×3 stem, three groups of `blocks` basic blocks, average pool, one linear layer: 6 `blocks` + 2 layers."""

    def __init__(self, *, blocks: int = 3, width: float = 1.0, classes: int = 10) -> None:
        super().__init__()
        sizes = [max(8, round(channels * width)) for channels in CHANNELS]
        self.stem = nn.Sequential(ConvBN(3, sizes[0]), nn.ReLU())
        parts: list[nn.Module] = []
        inputs = sizes[0]
        for group, outputs in enumerate(sizes):
            for index in range(blocks):
                parts.append(BasicBlock(inputs, outputs, stride=2 if group and not index else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*parts)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to logits [N, classes]."""
        logits: torch.Tensor = self.classifier(self.flatten(self.pool(self.blocks(self.stem(x)))))
        return logits
