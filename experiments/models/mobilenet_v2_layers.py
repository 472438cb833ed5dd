"""The layers of MobileNetV2, in the module tree whose names torchvision's files of weights have."""

from __future__ import annotations

import torch
from torch import nn

from bitwright.experiments.models.inverted_residuals import ConvBNReLU6

# (expansion, channels, blocks, stride of the first): table 2 of the paper.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM, HEAD = 32, 1280


def _channels(channels: int, width: float) -> int:
    """The multiple of 8 next to `channels * width` that loses at most a tenth of it."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels * width else rounded + 8


class Block(nn.Module):
    """Expand 1×1, depthwise 3×3, project 1×1 without activation; a skip where the shape stays."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [ConvBNReLU6(inputs, inner)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            ConvBNReLU6(inner, inner, kernel=3, stride=stride, groups=inner),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y: torch.Tensor = self.conv(x)
        return x + y if self.has_skip else y


class MobileNetV2(nn.Module):
    """Stem, 17 blocks, head; global average; one linear layer behind dropout."""

    def __init__(self, *, width: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        inputs = _channels(STEM, width)
        layers: list[nn.Module] = [ConvBNReLU6(3, inputs, kernel=3, stride=2)]
        for expansion, channels, blocks, stride in BLOCKS:
            outputs = _channels(channels, width)
            for index in range(blocks):
                layers.append(Block(inputs, outputs, stride=stride if index == 0 else 1, expansion=expansion))
                inputs = outputs
        head = _channels(HEAD, max(1.0, width))
        self.features = nn.Sequential(*layers, ConvBNReLU6(inputs, head))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(head, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to logits [N, classes]."""
        y: torch.Tensor = self.classifier(self.features(x).mean((2, 3)))
        return y
