"""Compact networks from picture to picture, of published designs."""

from __future__ import annotations

import torch
from torch import nn

from bitwright.experiments.benchmarks.latency.networks.blocks import conv
from bitwright.experiments.benchmarks.latency.networks.compact import Added


class Pyramid(nn.Module):
    """Reduce, dilated convolutions beside each other, sums of them joined (ESPNet, Mehta et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        quarter = width // 4
        self.reduce = nn.Conv2d(width, quarter, 1, bias=False)
        self.spread = nn.ModuleList(
            nn.Conv2d(quarter, quarter, 3, padding=2**i, dilation=2**i, bias=False) for i in range(4)
        )
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as x."""
        reduced = self.reduce(x)
        first, second, third, fourth = (layer(reduced) for layer in self.spread)
        third = second + third
        return torch.relu(self.norm(torch.cat([first, second, third, third + fourth], 1)) + x)


def dilated_pyramids(width: int, depth: int) -> nn.Module:
    """Downsampled, pyramids, and labels in full size."""
    up = nn.ConvTranspose2d(width, 8, 4, 4)
    return nn.Sequential(conv(3, width, 3, 2), conv(width, width, 3, 2), *(Pyramid(width) for _ in range(depth)), up)


def denoiser(width: int, depth: int) -> nn.Module:
    """Subtracts noise (DnCNN, Zhang et al. 2017)."""
    inner = [conv(width, width) for _ in range(depth)]
    return Added(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), *inner, nn.Conv2d(width, 1, 3, padding=1))


class Distilled(nn.Module):
    """A quarter of the channels is kept at each of three steps (IMDN, Hui et al. 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kept, self.left = width // 4, width - width // 4
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.more = nn.ModuleList(nn.Conv2d(self.left, width, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(self.left, self.kept, 3, padding=1)
        self.join = nn.Conv2d(4 * self.kept, width, 1)
        self.act = nn.LeakyReLU(0.05)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as x."""
        kept = []
        y = self.act(self.first(x))
        for layer in self.more:
            part, y = torch.split(y, [self.kept, self.left], 1)
            kept.append(part)
            y = self.act(layer(y))
        part, y = torch.split(y, [self.kept, self.left], 1)
        result: torch.Tensor = x + self.join(torch.cat([*kept, part, self.last(y)], 1))
        return result


def distilled(width: int, depth: int) -> nn.Module:
    """Twice the resolution."""
    blocks = [Distilled(width) for _ in range(depth)]
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *blocks, nn.Conv2d(width, 12, 3, padding=1),
                         nn.PixelShuffle(2))  # fmt: skip


class NestedDecoder(nn.Module):
    """A small U-Net++ (Zhou et al. 2018): each node joins all nodes of its level and the one below it, enlarged."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2)
        w = width
        self.encode = nn.ModuleList([conv(3, w), conv(w, 2 * w), conv(2 * w, 4 * w)])
        self.inner = nn.ModuleList([conv(3 * w, w), conv(6 * w, 2 * w), conv(4 * w, w)])
        self.head = nn.Conv2d(w, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to [N, 2, H, W]."""
        a0 = self.encode[0](x)
        b0 = self.encode[1](self.down(a0))
        c0 = self.encode[2](self.down(b0))
        a1 = self.inner[0](torch.cat([a0, self.up(b0)], 1))
        b1 = self.inner[1](torch.cat([b0, self.up(c0)], 1))
        y: torch.Tensor = self.head(self.inner[2](torch.cat([a0, a1, self.up(b1)], 1)))
        return y


class WeightedFusion(nn.Module):
    """Three levels, top-down then bottom-up, separable (BiFPN without learned weights, Tan et al. 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Upsample(scale_factor=2), nn.MaxPool2d(2)
        self.stem = nn.ModuleList([conv(3, width, 3, 2), conv(width, width, 3, 2), conv(width, width, 3, 2)])
        self.mix = nn.ModuleList(
            nn.Sequential(conv(width, width, groups=width, activation="none"), conv(width, width, 1, activation="silu"))
            for _ in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to [N, width, H / 8, W / 8]."""
        high = self.stem[0](x)
        middle = self.stem[1](high)
        low = self.stem[2](middle)
        between = self.mix[0](middle + self.up(low))
        above = self.mix[1](high + self.up(between))
        between = self.mix[2](middle + between + self.down(above))
        y: torch.Tensor = self.mix[3](low + self.down(between))
        return y
