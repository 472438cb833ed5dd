"""Inverted residuals with linear bottlenecks (Sandler et al. 2018, MobileNetV2), sized for small pictures."""

from __future__ import annotations

import torch
from torch import nn

# (channels, stride) of each group of blocks at width 1: three halvings behind the stem's, 64² to 4².
GROUPS = ((16, 1), (24, 2), (40, 2), (80, 2))
STEM_CHANNELS, HEAD_CHANNELS = 16, 160
DECODER_CHANNELS = 48


def scaled_channels(channels: int, width: float) -> int:
    """`channels * width`, rounded to a multiple of 8 as kernels like it, and at least 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)


class ConvBNReLU6(nn.Sequential):
    """Convolution, batch norm, ReLU6, with the padding that keeps the size at stride 1."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise k×k, project 1×1 without activation; a skip where the shape stays."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, kernel: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [ConvBNReLU6(inputs, inner)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            ConvBNReLU6(inner, inner, kernel=kernel, stride=stride, groups=inner),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y: torch.Tensor = self.layers(x)
        return x + y if self.has_skip else y


def _groups(*, width: float, depth: int, kernel: int, expansion: int) -> list[nn.Sequential]:
    """`depth` blocks for each of `GROUPS`, behind a stem."""
    groups, channels = [], scaled_channels(STEM_CHANNELS, width)
    for outputs, stride in ((scaled_channels(c, width), s) for c, s in GROUPS):
        group = nn.Sequential()
        for index in range(depth):
            step = stride if index == 0 else 1
            group.append(InvertedResidual(channels, outputs, stride=step, kernel=kernel, expansion=expansion))
            channels = outputs
        groups.append(group)
    return groups


class MobileNet(nn.Module):
    """Stem, groups of inverted residuals, head, average pool, one linear layer."""

    def __init__(
        self, *, width: float = 1.0, depth: int = 2, kernel: int = 3, expansion: int = 4, classes: int = 10
    ) -> None:
        super().__init__()
        self.stem = ConvBNReLU6(3, scaled_channels(STEM_CHANNELS, width), kernel=3, stride=2)
        groups = _groups(width=width, depth=depth, kernel=kernel, expansion=expansion)
        self.blocks = nn.Sequential(*(block for group in groups for block in group))
        head = scaled_channels(HEAD_CHANNELS, max(1.0, width))
        self.head = ConvBNReLU6(scaled_channels(GROUPS[-1][0], width), head)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(head, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to logits [N, classes]."""
        features = self.pool(self.head(self.blocks(self.stem(x)))).flatten(1)
        logits: torch.Tensor = self.classifier(features)
        return logits


class MobileSegmenter(nn.Module):
    """Features at a sixteenth of the size, scaled up, beside those at a quarter (Chen et al. 2018, DeepLabv3+)."""

    def __init__(self, *, width: float = 1.0, depth: int = 2, expansion: int = 4, classes: int = 11) -> None:
        super().__init__()
        self.stem = ConvBNReLU6(3, scaled_channels(STEM_CHANNELS, width), kernel=3, stride=2)
        groups = _groups(width=width, depth=depth, kernel=3, expansion=expansion)
        self.shallow = nn.Sequential(*groups[:2])
        self.deep = nn.Sequential(*groups[2:])
        inner = scaled_channels(DECODER_CHANNELS, width)
        shallow, deep = (scaled_channels(GROUPS[index][0], width) for index in (1, 3))
        self.head = ConvBNReLU6(deep, inner)
        self.up = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
        self.skip = ConvBNReLU6(shallow, inner)
        self.mix = ConvBNReLU6(2 * inner, 2 * inner, kernel=3, groups=2 * inner)
        self.classifier = nn.Conv2d(2 * inner, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to logits [N, classes, H, W]; H and W are multiples of 16."""
        shallow = self.shallow(self.stem(x))
        features = torch.cat([self.up(self.head(self.deep(shallow))), self.skip(shallow)], dim=1)
        logits: torch.Tensor = self.up(self.classifier(self.mix(features)))
        return logits


class MobileDetector(nn.Module):
    """Features at an eighth of the size, those at a sixteenth scaled up beside them; two heads, one result."""

    def __init__(self, *, width: float = 1.0, depth: int = 2, expansion: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.stem = ConvBNReLU6(3, scaled_channels(STEM_CHANNELS, width), kernel=3, stride=2)
        groups = _groups(width=width, depth=depth, kernel=3, expansion=expansion)
        self.fine = nn.Sequential(*groups[:3])
        self.coarse = groups[3]
        inner = scaled_channels(DECODER_CHANNELS, width)
        fine, coarse = (scaled_channels(GROUPS[index][0], width) for index in (2, 3))
        self.lateral, self.top = ConvBNReLU6(fine, inner), ConvBNReLU6(coarse, inner)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.score_tower = ConvBNReLU6(inner, inner, kernel=3)
        self.box_tower = ConvBNReLU6(inner, inner, kernel=3)
        self.scores, self.boxes = nn.Conv2d(inner, 1 + classes, 1), nn.Conv2d(inner, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to [N, 1 + classes + 4, H / 8, W / 8]; H and W are multiples of 16."""
        fine = self.fine(self.stem(x))
        features = self.lateral(fine) + self.up(self.top(self.coarse(fine)))
        return torch.cat([self.scores(self.score_tower(features)), self.boxes(self.box_tower(features))], dim=1)
