"""Networks for small inputs: 32×32 pictures, spectrograms, vectors. Their layers are often too small for int8."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from bitwright.experiments.benchmarks.latency.networks.blocks import Residual, classifier, conv, separable


def residual32(width: int, depth: int, gated: bool = False) -> nn.Module:
    """Three stages of residual blocks (He et al. 2016, section 4.2)."""
    layers: list[nn.Module] = [conv(3, width)]
    channels = width
    for stage in range(3):
        outputs = width << stage
        for block in range(depth):
            layers.append(Residual(channels, outputs, 2 if stage and not block else 1, gated=gated))
            channels = outputs
    return nn.Sequential(*layers, classifier(channels))


def plain32(width: int, per_stage: int, pool: str) -> nn.Module:
    """Convolutions and pooling, nothing else (Simonyan & Zisserman 2015; Springenberg et al. 2015 with strides)."""
    layers: list[nn.Module] = []
    channels = 3
    for stage in range(3):
        outputs = width << stage
        for _ in range(per_stage):
            layers.append(conv(channels, outputs))
            channels = outputs
        layers.append({"max": nn.MaxPool2d(2), "stride": conv(channels, channels, 3, 2)}[pool])
    return nn.Sequential(*layers, classifier(channels))


def separable32(width: int, depth: int, kernel: int, activation: str = "relu") -> nn.Module:
    """Depthwise separable convolutions from end to end."""
    layers: list[nn.Module] = [conv(3, width, 3, activation=activation)]
    channels = width
    for stage in range(3):
        outputs = width << stage
        for block in range(depth):
            stride = 2 if stage and not block else 1
            layers.append(separable(channels, outputs, stride, kernel=kernel, activation=activation))
            channels = outputs
    return nn.Sequential(*layers, classifier(channels))


class DenseBlock(nn.Module):
    """Each layer reads what all layers before it have made (Huang et al. 2017)."""

    def __init__(self, inputs: int, growth: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(inputs + i * growth), nn.ReLU(), conv(inputs + i * growth, growth))
            for i in range(depth)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs, H, W] to [N, inputs + depth * growth, H, W]."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def dense32(growth: int, depth: int) -> nn.Module:
    """Three dense blocks with pooling between them."""
    channels = 2 * growth
    layers: list[nn.Module] = [conv(3, channels)]
    for block in range(3):
        layers.append(DenseBlock(channels, growth, depth))
        channels += depth * growth
        if block < 2:
            layers += [conv(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, classifier(channels))


class Fire(nn.Module):
    """Squeeze, then 1×1 and 3×3 side by side, joined (Iandola et al. 2016, with batch norm)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = conv(inputs, squeezed, 1)
        self.one = conv(squeezed, expanded, 1)
        self.three = conv(squeezed, expanded, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs, H, W] to [N, 2 * expanded, H, W]."""
        x = self.squeeze(x)
        return torch.cat([self.one(x), self.three(x)], 1)


def branches32(width: int, depth: int) -> nn.Module:
    """Blocks that join two branches."""
    layers: list[nn.Module] = [conv(3, 2 * width)]
    for stage in range(3):
        for _ in range(depth):
            layers.append(Fire(2 * width, width // 2, width))
        if stage < 2:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, classifier(2 * width))


def keyword(width: int, depth: int) -> nn.Module:
    """Keyword spotting on a spectrogram [1, 1, 49, 10] (Zhang et al. 2017, DS-CNN)."""
    stem = nn.Sequential(nn.Conv2d(1, width, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(stem, *(separable(width, width) for _ in range(depth)), classifier(width, 12))


def perceptron(sizes: tuple[int, ...]) -> nn.Module:
    """Linear layers with ReLU between them: an autoencoder, a policy."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
