"""Parts that the networks share."""

from __future__ import annotations

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "leaky": nn.LeakyReLU,
    "gelu": nn.GELU,
    "none": nn.Identity,
}


def conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, groups: int = 1, activation: str = "relu"
) -> nn.Sequential:
    """Convolution, batch norm, activation; padded so that stride 1 keeps the size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        ACTIVATIONS[activation](),
    )


def separable(inputs: int, outputs: int, stride: int = 1, *, kernel: int = 3, activation: str = "relu") -> nn.Module:
    """Depthwise, then pointwise (Howard et al. 2017)."""
    return nn.Sequential(
        conv(inputs, inputs, kernel, stride, groups=inputs, activation=activation),
        conv(inputs, outputs, 1, activation=activation),
    )


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their means (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        inner = max(4, channels // reduction)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, channels, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, H, W] to the same."""
        return x * torch.sigmoid(self.gate(x))


class Residual(nn.Module):
    """Two 3×3 convolutions beside a skip, then ReLU; with or without squeeze-and-excite."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, gated: bool = False) -> None:
        super().__init__()
        gate = [SqueezeExcite(outputs)] if gated else []
        self.layers = nn.Sequential(
            conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3, activation="none"), *gate
        )
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else conv(inputs, outputs, 1, stride, activation="none")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        return torch.relu(self.layers(x) + self.skip(x))


def classifier(channels: int, classes: int = 10) -> nn.Sequential:
    """Mean over the picture, one linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
