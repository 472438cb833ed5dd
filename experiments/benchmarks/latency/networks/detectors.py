"""Detectors in the manner of YOLO: blocks that split and join channels, a pyramid down and up, three heads."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from bitwright.experiments.benchmarks.latency.networks.blocks import conv

_OUTPUTS = 3 * 15  # three anchors, each a box, an objectness and ten classes


class Bottleneck(nn.Module):
    """1×1, 3×3, and a skip around both when asked for."""

    def __init__(self, channels: int, activation: str, skip: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(channels, channels, 1, activation=activation), conv(channels, channels, 3, activation=activation)
        )
        self.skip = skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, H, W] to the same."""
        y: torch.Tensor = self.layers(x)
        return x + y if self.skip else y


class CrossStage(nn.Module):
    """Half of the channels pass bottlenecks, half one 1×1; then both are joined (Wang et al. 2020, CSPNet)."""

    def __init__(self, inputs: int, outputs: int, depth: int, activation: str, skip: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.through = nn.Sequential(
            conv(inputs, half, 1, activation=activation), *(Bottleneck(half, activation, skip) for _ in range(depth))
        )
        self.past = conv(inputs, half, 1, activation=activation)
        self.join = conv(outputs, outputs, 1, activation=activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H, W]."""
        joined: torch.Tensor = self.join(torch.cat([self.through(x), self.past(x)], 1))
        return joined


class PyramidPool(nn.Module):
    """Three poolings one behind the other, all joined (SPPF)."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.enter = conv(channels, channels // 2, 1, activation=activation)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = conv(2 * channels, channels, 1, activation=activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, H, W] to the same."""
        levels = [self.enter(x)]
        for _ in range(3):
            levels.append(self.pool(levels[-1]))
        left: torch.Tensor = self.leave(torch.cat(levels, 1))
        return left


class CrossStageDetector(nn.Module):
    """Five halvings, a pyramid down and up, heads at three strides."""

    def __init__(self, width: int, depth: int, activation: str) -> None:
        super().__init__()
        w = width

        def stage(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                conv(inputs, outputs, 3, 2, activation=activation), CrossStage(outputs, outputs, depth, activation)
            )

        self.stem = nn.Sequential(conv(3, w, 6 // 2, 2, activation=activation), stage(w, 2 * w))
        self.third, self.fourth = stage(2 * w, 4 * w), stage(4 * w, 8 * w)
        self.fifth = nn.Sequential(stage(8 * w, 16 * w), PyramidPool(16 * w, activation))
        self.narrow5 = conv(16 * w, 8 * w, 1, activation=activation)
        self.narrow4 = conv(8 * w, 4 * w, 1, activation=activation)
        self.down4 = CrossStage(16 * w, 8 * w, depth, activation, skip=False)
        self.down3 = CrossStage(8 * w, 4 * w, depth, activation, skip=False)
        self.stride3 = conv(4 * w, 4 * w, 3, 2, activation=activation)
        self.up4 = CrossStage(8 * w, 8 * w, depth, activation, skip=False)
        self.stride4 = conv(8 * w, 8 * w, 3, 2, activation=activation)
        self.up5 = CrossStage(16 * w, 16 * w, depth, activation, skip=False)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.heads = nn.ModuleList(nn.Conv2d(c * w, _OUTPUTS, 1) for c in (4, 8, 16))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """float32 [N, 3, H, W] to three maps at strides 8, 16 and 32."""
        third = self.third(self.stem(x))
        fourth = self.fourth(third)
        five = self.narrow5(self.fifth(fourth))
        four = self.narrow4(self.down4(torch.cat([self.upsample(five), fourth], 1)))
        three = self.down3(torch.cat([self.upsample(four), third], 1))
        four = self.up4(torch.cat([self.stride3(three), four], 1))
        five = self.up5(torch.cat([self.stride4(four), five], 1))
        return tuple(head(level) for head, level in zip(self.heads, (three, four, five), strict=True))


class TinyDetector(nn.Module):
    """Convolutions and poolings with two heads (Redmon & Farhadi 2018, YOLOv3-tiny)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [3, width, 2 * width, 4 * width, 8 * width, 16 * width]
        steps: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            steps += [conv(inputs, outputs, activation="leaky"), nn.MaxPool2d(2)]
        self.early = nn.Sequential(*steps[:-1])
        self.late = nn.Sequential(
            nn.MaxPool2d(2), conv(16 * width, 32 * width, activation="leaky"), conv(32 * width, 16 * width, 1)
        )
        self.head5 = nn.Sequential(conv(16 * width, 32 * width, activation="leaky"), nn.Conv2d(32 * width, _OUTPUTS, 1))
        self.narrow = nn.Sequential(conv(16 * width, 8 * width, 1, activation="leaky"), nn.Upsample(scale_factor=2))
        self.head4 = nn.Sequential(conv(24 * width, 16 * width, activation="leaky"), nn.Conv2d(16 * width, _OUTPUTS, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 [N, 3, H, W] to maps at strides 16 and 32."""
        early = self.early(x)
        late = self.late(early)
        return self.head4(torch.cat([self.narrow(late), early], 1)), self.head5(late)
