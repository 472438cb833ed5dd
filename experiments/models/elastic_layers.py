"""Stages of convolutional blocks whose kernel, depth, width, expansion, gate and activation may differ by place.

Blocks are those of MobileNetV3 (Howard et al. 2019, arXiv:1905.02244) and of ResNet (He et al. 2016); the first block
of a stage never has a plain skip, whatever its sizes, so that layers of any two networks of a family have the same
names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
}
CHANNELS = (16, 24, 40, 80)  # of the stages at width 1; all but the first begin with stride 2
STEM_CHANNELS, HEAD_CHANNELS = 16, 160
_MULTIPLE = 8  # what kernels like


class Places(Protocol):
    """Settings by place; see `by_place.ByPlace`."""

    def at(self, name: str, *place: int) -> Any:
        """A setting at a stage, or at a stage's block."""


def scaled(channels: float) -> int:
    """The nearest multiple of 8, and at least 8."""
    return max(_MULTIPLE, int(channels / _MULTIPLE + 0.5) * _MULTIPLE)


class ConvBN(nn.Sequential):
    """Convolution and batch norm, with the padding that keeps the size at stride 1, then an activation if any."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, activation: str = ""
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            *([ACTIVATIONS[activation]()] if activation else []),
        )


class Gate(nn.Module):
    """Squeeze and excitation (Hu et al. 2018, arXiv:1709.01507) with a hard sigmoid, as MobileNetV3 has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.act = nn.Conv2d(channels, scaled(channels / 4), 1), nn.ReLU()
        self.widen, self.gate = nn.Conv2d(scaled(channels / 4), channels, 1), nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, channels, H, W], each channel times a factor in [0, 1]."""
        factors: torch.Tensor = self.gate(self.widen(self.act(self.reduce(self.pool(x)))))
        return x * factors


class MobileBlock(nn.Module):
    """Expand 1×1, depthwise k×k, gate, project 1×1 without activation; a skip behind the first of a stage."""

    def __init__(self, settings: Places, place: tuple[int, int], inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        kernel, activation = settings.at("kernel", *place), settings.at("activation", *place)
        inner = scaled(inputs * settings.at("expansion", *place))
        self.expand = ConvBN(inputs, inner, activation=activation)
        self.depthwise = ConvBN(inner, inner, kernel=kernel, stride=stride, groups=inner, activation=activation)
        self.gate = Gate(inner) if settings.at("se", *place) else nn.Identity()
        self.project = ConvBN(inner, outputs)
        self.has_skip = place[1] > 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y: torch.Tensor = self.project(self.gate(self.depthwise(self.expand(x))))
        return x + y if self.has_skip else y


class ResidualBlock(nn.Module):
    """k×k into the inner width, k×k out of it, gate; beside it the input, projected in the first block of a stage."""

    def __init__(self, settings: Places, place: tuple[int, int], inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        kernel, activation = settings.at("kernel", *place), settings.at("activation", *place)
        inner = scaled(outputs * settings.at("expansion", *place))
        self.first = ConvBN(inputs, inner, kernel=kernel, stride=stride, activation=activation)
        self.second = ConvBN(inner, outputs, kernel=kernel)
        self.gate = Gate(outputs) if settings.at("se", *place) else nn.Identity()
        self.shortcut = nn.Identity() if place[1] else ConvBN(inputs, outputs, stride=stride)
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y: torch.Tensor = self.act(self.gate(self.second(self.first(x))) + self.shortcut(x))
        return y


BLOCKS: dict[str, type[MobileBlock] | type[ResidualBlock]] = {"mobile": MobileBlock, "residual": ResidualBlock}


def stages(settings: Places, family: str, channels: Sequence[int] = CHANNELS) -> tuple[list[nn.Sequential], list[int]]:
    """The stages of a network behind a stem of `scaled(STEM_CHANNELS * width)` channels.

    Returns:
        The stages, and how many channels each returns.
    """
    made, sizes = [], []
    inputs = scaled(STEM_CHANNELS * settings.at("width"))
    for stage, plain in enumerate(channels):
        outputs = scaled(plain * settings.at("width", stage))
        blocks = nn.Sequential()
        for block in range(settings.at("depth", stage)):
            stride = 2 if stage and not block else 1
            blocks.append(BLOCKS[family](settings, (stage, block), inputs, outputs, stride))
            inputs = outputs
        made.append(blocks)
        sizes.append(outputs)
    return made, sizes


def resized(x: torch.Tensor, resolution: int | None) -> torch.Tensor:
    """Pictures at the size that a network computes at; None leaves them as they are."""
    if resolution is None or x.shape[-1] == resolution:
        return x
    return nn.functional.interpolate(x, size=(resolution, resolution), mode="bilinear", align_corners=False)


class ConvNet(nn.Module):
    """Stem, stages, head, average pool, one linear layer."""

    def __init__(self, settings: Places, *, family: str, resolution: int | None, classes: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.stem = ConvBN(
            3, scaled(STEM_CHANNELS * settings.at("width")), kernel=3, stride=2, activation=settings.at("activation")
        )
        made, sizes = stages(settings, family)
        self.blocks = nn.Sequential(*made)
        self.head = ConvBN(sizes[-1], HEAD_CHANNELS, activation=settings.at("activation"))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(HEAD_CHANNELS, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to logits [N, classes]."""
        features = self.pool(self.head(self.blocks(self.stem(resized(x, self.resolution)))))
        logits: torch.Tensor = self.classifier(features.flatten(1))
        return logits
