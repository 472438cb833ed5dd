"""Convolutional networks of a few channels, whose accuracy on small pictures is limited by each of their decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.space import Parameter, Value

STAGES = 3
CLASSES = 10


def narrow_space(
    widths: Sequence[int], *, kernels: Sequence[int] = (1, 3), depths: Sequence[int] = (1, 2)
) -> DeclaredSpace:
    """Channels, side of the kernels and number of convolutions, stage by stage."""
    choices = {"width": tuple(widths), "kernel": tuple(kernels), "depth": tuple(depths)}
    return DeclaredSpace(
        own=tuple(
            Parameter(name=f"{name}_{stage}", choices=each, ordered=True)
            for stage in range(STAGES)
            for name, each in choices.items()
        )
    )


class _Layer(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


class NarrowNet(nn.Module):
    """Three stages, all but the first behind a halving of the resolution; average pool, one linear layer."""

    def __init__(self, architecture: Mapping[str, Value]) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        inputs = 3
        for stage in range(STAGES):
            width, kernel, depth = (int(architecture[f"{name}_{stage}"]) for name in ("width", "kernel", "depth"))
            layers = nn.Sequential()
            for index in range(depth):
                stride = 2 if stage and not index else 1
                layers.append(_Layer(inputs, width, kernel=kernel, stride=stride))
                inputs = width
            self.stages.append(layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to logits [N, 10]."""
        for layers in self.stages:
            x = layers(x)
        logits: torch.Tensor = self.classifier(self.pool(x).flatten(1))
        return logits
