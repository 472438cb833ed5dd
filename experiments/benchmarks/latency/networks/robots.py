"""Networks of robots: bodies' points, depth, flow, grips, policies, what inertial and vibration sensors say."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from bitwright.experiments.benchmarks.latency.networks.blocks import Residual, conv, separable
from bitwright.experiments.benchmarks.latency.networks.compact import Added, Beside


class KeyPoints(nn.Module):
    """Heat maps and fields of limbs, refined from features and themselves (Osokin 2018)."""

    def __init__(self, width: int, refinements: int) -> None:
        super().__init__()
        w = width
        self.backbone = nn.Sequential(
            conv(3, w, 3, 2), separable(w, 2 * w, 2), separable(2 * w, 4 * w, 2), separable(4 * w, 4 * w)
        )
        self.initial = nn.Sequential(conv(4 * w, 2 * w), conv(2 * w, 2 * w), nn.Conv2d(2 * w, 57, 1))
        self.refine = nn.ModuleList(
            nn.Sequential(
                conv(4 * w + 57, 2 * w, 1),
                Added(conv(2 * w, 2 * w), nn.Conv2d(2 * w, 2 * w, 3, padding=2, dilation=2), nn.ReLU()),
                nn.Conv2d(2 * w, 57, 1),
            )
            for _ in range(refinements)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to [N, 57, H / 8, W / 8]."""
        features = self.backbone(x)
        maps: torch.Tensor = self.initial(features)
        for stage in self.refine:
            maps = stage(torch.cat([features, maps], 1))
        return maps


class FastDepth(nn.Module):
    """Depth: separable down, separable with nearest neighbours up, skips added (Wofk et al. 2019)."""

    def __init__(self, width: int, levels: int, kernel: int) -> None:
        super().__init__()
        widths = [width << min(level, 4) for level in range(levels)]
        self.first = conv(3, width, 3, 2)
        self.down = nn.ModuleList(separable(inputs, outputs, 2) for inputs, outputs in pairwise(widths))
        self.up = nn.ModuleList(
            nn.Sequential(separable(outputs, inputs, kernel=kernel), nn.Upsample(scale_factor=2))
            for inputs, outputs in pairwise(widths)
        )
        self.head = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to depths [N, 1, H, W]."""
        made = [self.first(x)]
        for down in self.down:
            made.append(down(made[-1]))
        y = made.pop()
        for up, skip in zip(reversed(self.up), reversed(made), strict=True):
            y = up(y) + skip
        depths: torch.Tensor = self.head(y)
        return depths


class StackedFlow(nn.Module):
    """Flow of two pictures laid on each other, no correlation (FlowNetS, Dosovitskiy et al. 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.encode = nn.ModuleList(
            conv(inputs, outputs, kernel, 2, activation="leaky")
            for inputs, outputs, kernel in ((6, w, 7), (w, 2 * w, 5), (2 * w, 4 * w, 3), (4 * w, 8 * w, 3))
        )
        self.flow = nn.ModuleList(nn.Conv2d(each, 2, 3, padding=1) for each in (8 * w, 6 * w + 2, 3 * w + 2))
        self.larger = nn.ModuleList(nn.ConvTranspose2d(2, 2, 4, 2, 1, bias=False) for _ in range(2))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.1))
            for inputs, outputs in ((8 * w, 2 * w), (6 * w + 2, w))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 6, H, W] to [N, 2, H / 4, W / 4]."""
        made = []
        for encode in self.encode:
            x = encode(x)
            made.append(x)
        flow: torch.Tensor = self.flow[0](x)
        for step, skip in enumerate((made[2], made[1])):
            x = torch.cat([skip, self.up[step](x), self.larger[step](flow)], 1)
            flow = self.flow[step + 1](x)
        return flow


def inertial(width: int, depth: int) -> nn.Module:
    """Six channels of an inertial sensor under three long kernels and a maximum (InceptionTime, Fawaz et al. 2020)."""
    layers: list[nn.Module] = []
    channels = 6
    for _ in range(depth):
        branches: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), _along(width, width, kernel))
            for kernel in (9, 19, 39)
        ]
        pooled = nn.Sequential(nn.MaxPool2d((1, 3), 1, (0, 1)), nn.Conv2d(channels, width, 1, bias=False))
        layers += [Beside(*branches, pooled), nn.BatchNorm2d(4 * width), nn.ReLU()]
        channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 6))


def _along(inputs: int, outputs: int, kernel: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, (1, kernel), padding=(0, kernel // 2), bias=False)


class Grasps(nn.Module):
    """For each pixel of a depth picture how well, at what angle and how wide to grip (Morrison et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.body = nn.Sequential(
            nn.Conv2d(1, 2 * w, 9, 3, 3), nn.ReLU(), nn.Conv2d(2 * w, w, 5, 2, 2), nn.ReLU(),
            nn.Conv2d(w, w // 2, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(w // 2, w // 2, 3, 2, 1, 1), nn.ReLU(),
            nn.ConvTranspose2d(w // 2, w, 5, 2, 2, 1), nn.ReLU(), nn.ConvTranspose2d(w, 2 * w, 9, 3, 3), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ModuleList(nn.Conv2d(2 * w, 1, 2) for _ in range(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """float32 [N, 1, H, W] to four maps [N, 1, H - 1, W - 1]."""
        y = self.body(x)
        return tuple(head(y) for head in self.heads)


def impala(width: int, depth: int, side: int) -> nn.Module:
    """A policy from four pictures: poolings with residual blocks behind (Espeholt et al. 2018)."""
    layers: list[nn.Module] = []
    channels = 4
    for outputs in (width, 2 * width, 2 * width):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.MaxPool2d(3, 2, 1)]
        for _ in range(depth):
            inner = [nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1)]
            layers.append(Added(nn.ReLU(), *inner))
        channels = outputs
    features = channels * (side // 8) ** 2
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, 15))


def vibration(width: int, depth: int, length: int) -> nn.Module:
    """Faults of bearings: one very wide kernel first, short ones behind (Zhang et al. 2017)."""
    layers: list[nn.Module] = [nn.Conv2d(1, width, (1, 64), (1, 16), (0, 24)), nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for level in range(depth):
        outputs = width << min(level + 1, 2)
        layers += [nn.Conv2d(channels, outputs, (1, 3), padding=(0, 1)), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers.append(nn.MaxPool2d((1, 2)))
        channels = outputs
    features = channels * (length // 16 >> depth)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 100), nn.ReLU(), nn.Linear(100, 10))


class DensePolicy(nn.Module):
    """Perceptrons that read the state again at each layer (D2RL, Sinha et al. 2020)."""

    def __init__(self, state: int, width: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Linear(state, width)
        self.layers = nn.ModuleList(nn.Linear(width + state, width) for _ in range(depth))
        self.actions = nn.Linear(width, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, state] to [N, 12]."""
        y = torch.relu(self.first(x))
        for layer in self.layers:
            y = torch.relu(layer(torch.cat([y, x], 1)))
        return torch.tanh(self.actions(y))


def floor_finder(width: int, depth: int) -> nn.Module:
    """Free floor in each of a picture's columns (StixelNet, Levi et al. 2015): rows are narrowed to one."""
    layers: list[nn.Module] = [conv(3, width, 5, 2), nn.MaxPool2d(2)]
    layers += [Residual(width, width, gated=True) for _ in range(depth)]
    for inputs, outputs in ((width, 2 * width), (2 * width, 2 * width)):
        layers += [nn.Conv2d(inputs, outputs, 3, (2, 1), 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d((4, 1)), nn.Conv2d(2 * width, 50, 1))
