"""Networks whose output is a picture: segmentation, bird's-eye views, super-resolution, heat maps."""

from __future__ import annotations

import torch
from torch import nn

from bitwright.experiments.benchmarks.latency.networks.blocks import Residual, conv, separable


class UNet(nn.Module):
    """Down and up with joined skips (Ronneberger et al. 2015, with padding)."""

    def __init__(self, width: int, levels: int, up: str) -> None:
        super().__init__()
        sizes = [width << level for level in range(levels)]
        self.downs = nn.ModuleList(
            nn.Sequential(conv(inputs, outputs), conv(outputs, outputs))
            for inputs, outputs in zip([3, *sizes], sizes, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(2 * size, size, 2, 2)
            if up == "deconv"
            else nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv(2 * size, size))
            for size in sizes[:-1]
        )
        self.joins = nn.ModuleList(nn.Sequential(conv(2 * size, size), conv(size, size)) for size in sizes[:-1])
        self.head = nn.Conv2d(width, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to scores [N, 8, H, W]."""
        skips: list[torch.Tensor] = []
        for down in self.downs:
            x = down(x if not skips else self.pool(x))
            skips.append(x)
        for up, join, skip in reversed(list(zip(self.ups, self.joins, skips, strict=False))):
            x = join(torch.cat([up(x), skip], 1))
        scores: torch.Tensor = self.head(x)
        return scores


class BirdsEyeNeck(nn.Module):
    """A pseudo-image's backbone with blocks at three strides, all brought to one size and joined (Lang et al. 2019)."""

    def __init__(self, width: int, depth: int, inputs: int = 32) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.ups = nn.ModuleList()
        for level in range(3):
            outputs = width << level
            convs = [conv(outputs, outputs) for _ in range(depth)]
            self.blocks.append(nn.Sequential(conv(inputs, outputs, 3, 2), *convs))
            factor = 1 << level
            up = nn.ConvTranspose2d(outputs, width, factor, factor, bias=False) if level else nn.Conv2d(width, width, 1)
            self.ups.append(nn.Sequential(up, nn.BatchNorm2d(width), nn.ReLU()))
            inputs = outputs
        self.head = nn.Conv2d(3 * width, 20, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 32, H, W] to [N, 20, H / 2, W / 2]."""
        levels = []
        for block, up in zip(self.blocks, self.ups, strict=True):
            x = block(x)
            levels.append(up(x))
        heads: torch.Tensor = self.head(torch.cat(levels, 1))
        return heads


class FeatureFusion(nn.Module):
    """Residual stages at three strides, summed top down with bilinear upsampling (Lin et al. 2017)."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.stem = conv(3, width, 5, 2)
        self.stages = nn.ModuleList()
        channels = width
        for level in range(3):
            outputs = width << level
            steps = [Residual(channels if not i else outputs, outputs, 2 if not i else 1) for i in range(depth)]
            self.stages.append(nn.Sequential(*steps))
            channels = outputs
        self.lateral = nn.ModuleList(nn.Conv2d(width << level, width, 1) for level in range(3))
        self.smooth = nn.ModuleList(conv(width, width) for _ in range(3))
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """float32 [N, 3, H, W] to three maps at strides 4, 8 and 16."""
        levels = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        top, maps = None, []
        for level, lateral, smooth in reversed(list(zip(levels, self.lateral, self.smooth, strict=True))):
            top = lateral(level) if top is None else lateral(level) + self.upsample(top)
            maps.append(smooth(top))
        return tuple(maps)


class FastSegmenter(nn.Module):
    """A shallow detailed branch beside a deep separable one, added (Poudel et al. 2019, Fast-SCNN)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.learn = nn.Sequential(
            conv(3, width, 3, 2), separable(width, 2 * width, 2), separable(2 * width, 2 * width)
        )
        self.deep = nn.Sequential(
            separable(2 * width, 3 * width, 2), separable(3 * width, 4 * width, 2), separable(4 * width, 4 * width)
        )
        self.narrow = conv(4 * width, 4 * width, 1, activation="none")
        self.detail = conv(2 * width, 4 * width, 1, activation="none")
        self.upsample = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
        self.head = nn.Sequential(separable(4 * width, 4 * width), nn.Conv2d(4 * width, 19, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to scores [N, 19, H / 4, W / 4]."""
        x = self.learn(x)
        deep = self.narrow(self.upsample(self.deep(x)))
        scores: torch.Tensor = self.head(torch.relu(self.detail(x) + deep))
        return scores


class Factorized(nn.Module):
    """3×1 and 1×3 convolutions, dilated, with a skip (Romera et al. 2018, ERFNet)."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        d = dilation
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, (3, 1), 1, (1, 0)),
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, 3), 1, (0, 1)),
            nn.ReLU(),
            nn.Conv2d(channels, channels, (3, 1), 1, (d, 0), dilation=(d, 1)),
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, 3), 1, (0, d), dilation=(1, d)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, H, W] to the same."""
        return torch.relu(x + self.layers(x))


def factorized(width: int, depth: int) -> nn.Module:
    """Two halvings, factorized blocks, two deconvolutions."""
    middle = [Factorized(4 * width, 2 ** (1 + i % 3)) for i in range(depth)]
    return nn.Sequential(
        conv(3, width, 3, 2),
        conv(width, 4 * width, 3, 2),
        *middle,
        nn.ConvTranspose2d(4 * width, width, 2, 2),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 8, 2, 2),
    )


def super_resolution(width: int, depth: int, factor: int) -> nn.Module:
    """Convolutions at low resolution, then a pixel shuffle (Shi et al. 2016, ESPCN)."""
    body = [conv(width, width) for _ in range(depth)]
    return nn.Sequential(conv(1, width, 5), *body, nn.Conv2d(width, factor * factor, 3, 1, 1), nn.PixelShuffle(factor))


def heat_maps(width: int, depth: int) -> nn.Module:
    """Residual stages, then deconvolutions (Xiao et al. 2018, simple baselines for pose)."""
    layers: list[nn.Module] = [conv(3, width, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = width
    for level in range(3):
        outputs = width << level
        layers += [Residual(channels if not i else outputs, outputs, 2 if level and not i else 1) for i in range(depth)]
        channels = outputs
    for _ in range(2):
        layers += [nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(width, 17, 1))
