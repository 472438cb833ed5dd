"""Compact networks of published designs: small pictures, signals, points and screens; many short layers.

What int8 gains in a kernel, conversions and the many small kernels of such networks often take back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bitwright.experiments.benchmarks.latency.networks.blocks import SqueezeExcite, classifier, conv, separable


class Added(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as x."""
        y: torch.Tensor = x + self.body(x)
        return y


class Beside(nn.Module):
    """Branches over the same x, joined along channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to [N, sum of the branches' channels, H', W']."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class Cell(nn.Module):
    """A NAS-Bench-201 cell (Dong & Yang 2020): four nodes, one operation for each of six edges."""

    def __init__(self, width: int, edges: str) -> None:
        super().__init__()
        make: dict[str, Callable[[], nn.Module]] = {
            "s": nn.Identity,
            "1": lambda: conv(width, width, 1),
            "3": lambda: conv(width, width, 3),
            "p": lambda: nn.AvgPool2d(3, 1, 1),
        }
        self.edges = nn.ModuleList(make[edge]() for edge in edges)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as x."""
        a, b, c, d, e, f = self.edges
        first = a(x)
        second = b(x) + c(first)
        y: torch.Tensor = d(x) + e(first) + f(second)
        return y


def cells(width: int, depth: int, edges: str) -> nn.Module:
    """Three stages of one cell."""
    layers: list[nn.Module] = [conv(3, width)]
    for stage in range(3):
        if stage:
            layers.append(conv(width << stage - 1, width << stage, 3, 2))
        layers += [Cell(width << stage, edges) for _ in range(depth)]
    return nn.Sequential(*layers, classifier(width << 2))


class HarmonicBlock(nn.Module):
    """Layer n reads the layers n - 1, n - 2, n - 4, ... where powers of two divide n (HarDNet, Chao et al. 2019)."""

    def __init__(self, inputs: int, growth: int, depth: int) -> None:
        super().__init__()
        widths = [inputs] + [growth] * depth
        self.reads = [[n - 2**i for i in range(8) if n % 2**i == 0 and n >= 2**i] for n in range(1, depth + 1)]
        self.layers = nn.ModuleList(conv(sum(widths[i] for i in reads), growth) for reads in self.reads)
        self.outputs = growth * ((depth + 1) // 2 + (depth % 2 == 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, outputs, H, W]."""
        made = [x]
        for reads, layer in zip(self.reads, self.layers, strict=True):
            made.append(layer(torch.cat([made[i] for i in reads], 1) if len(reads) > 1 else made[reads[0]]))
        kept = [each for number, each in enumerate(made[1:], 1) if number % 2 or number == len(made) - 1]
        return torch.cat(kept, 1)


def harmonic(width: int, growth: int, depth: int) -> nn.Module:
    """Two harmonic blocks."""
    first = HarmonicBlock(width, growth, depth)
    second = HarmonicBlock(2 * width, growth, depth)
    down = nn.Sequential(conv(first.outputs, 2 * width, 1), nn.MaxPool2d(2))
    return nn.Sequential(conv(3, width), first, down, second, classifier(second.outputs))


def mixed_branches(width: int, depth: int) -> nn.Module:
    """Branches of 1x1, 3x3, separable 5x5 and pooling, joined (Szegedy et al. 2015, with separable kernels)."""
    layers: list[nn.Module] = [conv(3, 4 * width)]
    for _ in range(depth):
        pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(4 * width, width, 1))
        three = nn.Sequential(conv(4 * width, width, 1), conv(width, width, 3))
        five = nn.Sequential(conv(4 * width, width, 1), separable(width, width, kernel=5))
        layers.append(Beside(conv(4 * width, width, 1), three, five, pooled))
    return nn.Sequential(*layers, classifier(4 * width))


def gated_separable(width: int, depth: int, kernel: int) -> nn.Module:
    """Depthwise, squeeze-and-excite, pointwise with a residual; hard swish."""
    layers: list[nn.Module] = [conv(3, width, 3, 2, activation="hardswish")]
    for _ in range(depth):
        wide = conv(width, width, kernel, groups=width, activation="hardswish")
        layers.append(Added(wide, SqueezeExcite(width), conv(width, width, 1, activation="none")))
    return nn.Sequential(*layers, classifier(width))


def preactivated(width: int, depth: int) -> nn.Module:
    """Norm and ReLU before each convolution (He et al. 2016b; Zagoruyko & Komodakis 2016)."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
    for stage in range(3):
        channels = width << stage
        for _ in range(depth):
            parts = [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False)]
            more = [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False)]
            layers.append(Added(*parts, *more))
        if stage < 2:
            layers.append(nn.Conv2d(channels, 2 * channels, 2, 2))
    return nn.Sequential(*layers, nn.BatchNorm2d(width << 2), nn.ReLU(), classifier(width << 2))


def in_network(width: int, size: int) -> nn.Module:
    """Network in network (Lin et al. 2014): 5x5 convolutions, each with two of 1x1 behind."""
    layers: list[nn.Module] = []
    for inputs, kernel in ((3, 5), (width, 5), (width, 3)):
        layers += [conv(inputs, width, kernel), conv(width, width, 1), conv(width, width, 1), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*layers, classifier(width, size))


def of_screens(width: int, hidden: int) -> nn.Module:
    """Values of actions from four 84x84 screens (Mnih et al. 2015)."""
    convs = [nn.Conv2d(4, width, 8, 4), nn.ReLU(), nn.Conv2d(width, 2 * width, 4, 2), nn.ReLU()]
    head = [nn.Conv2d(2 * width, 2 * width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * width * 49, hidden)]
    return nn.Sequential(*convs, *head, nn.ReLU(), nn.Linear(hidden, 18))


def steering(width: int, hidden: int) -> nn.Module:
    """A steering angle from a 66x200 picture (Bojarski et al. 2016)."""
    layers: list[nn.Module] = []
    channels = 3
    for outputs, kernel, stride in ((width, 5, 2), (width * 3 // 2, 5, 2), (2 * width, 5, 2), (2 * width, 3, 1)):
        layers += [nn.Conv2d(channels, outputs, kernel, stride), nn.ELU() if outputs == width else nn.ReLU()]
        channels = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 3 * 20, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def brain_waves(filters: int, multiplier: int, channels: int) -> nn.Module:
    """EEGNet (Lawhern et al. 2018): long kernels in time, depthwise ones over electrodes."""
    inner = filters * multiplier
    return nn.Sequential(
        nn.Conv2d(1, filters, (1, 33), padding=(0, 16), bias=False), nn.BatchNorm2d(filters),
        nn.Conv2d(filters, inner, (channels, 1), groups=filters, bias=False), nn.BatchNorm2d(inner), nn.ELU(),
        nn.AvgPool2d((1, 4)), nn.Conv2d(inner, inner, (1, 17), padding=(0, 8), groups=inner, bias=False),
        nn.Conv2d(inner, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ELU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(inner, 4),
    )  # fmt: skip


def sounds(width: int, depth: int, kernel: int) -> nn.Module:
    """Separable convolutions over time with residuals (MatchboxNet, Majumdar & Ginsburg 2020)."""
    layers: list[nn.Module] = [nn.Conv2d(64, width, 1), nn.ReLU()]
    for _ in range(depth):
        along = nn.Conv2d(width, width, (1, kernel), padding=(0, kernel // 2), groups=width, bias=False)
        layers.append(Added(along, nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU()))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 30))


def points(width: int, count: int) -> nn.Module:
    """PointNet (Qi et al. 2017): the same perceptron for each point, then the maximum over the points."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, width), (width, width), (width, 2 * width), (2 * width, 8 * width)):
        layers += [nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    head = [nn.Flatten(), nn.Linear(8 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 40)]
    return nn.Sequential(*layers, nn.MaxPool2d((1, count)), *head)
