"""Necks that join the stages of an encoder, and a network that names the class of each pixel with them.

Necks are those of detectors in pictures and in a bird's-eye view: a pyramid of features that are added on their way
down (FPN; Lin et al. 2017, arXiv:1612.03144), and levels that are scaled up to one size and concatenated (SECOND; Yan
et al. 2018, doi:10.3390/s18103337; PointPillars, arXiv:1812.05784).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bitwright.experiments.models.elastic_layers import STEM_CHANNELS, ConvBN, Places, resized, scaled, stages

NECK_CHANNELS = 48


def up(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Scaled up to a size, [height, width]."""
    return nn.functional.interpolate(x, size=(size[0], size[1]), mode="bilinear", align_corners=False)


def smoothing(settings: Places, level: int, channels: int) -> nn.Sequential:
    """Depthwise k×k and 1×1, as often as the neck is deep at a level."""
    layers = nn.Sequential()
    kernel, activation = settings.at("neck_kernel", level), settings.at("activation")
    for _ in range(settings.at("neck_depth", level)):
        depthwise = ConvBN(channels, channels, kernel=kernel, groups=channels, activation=activation)
        layers.append(nn.Sequential(depthwise, ConvBN(channels, channels, activation=activation)))
    return layers


class PyramidNeck(nn.Module):
    """Each level 1×1 to one width, the coarser one scaled up and added, smoothed; the finest is returned."""

    def __init__(self, settings: Places, sizes: Sequence[int]) -> None:
        super().__init__()
        self.channels = scaled(NECK_CHANNELS * settings.at("neck_width"))
        activation = settings.at("activation")
        self.lateral = nn.ModuleList(ConvBN(size, self.channels, activation=activation) for size in sizes)
        self.smooth = nn.ModuleList(smoothing(settings, level, self.channels) for level in range(len(sizes)))

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """float32 levels [N, size, H, W], finest first, to [N, channels, H, W] of the finest."""
        joined: torch.Tensor | None = None
        for level in reversed(range(len(levels))):
            own = self.lateral[level](levels[level])
            joined = self.smooth[level](own if joined is None else own + up(joined, own.shape[-2:]))
        assert joined is not None
        return joined


class BirdsEyeNeck(nn.Module):
    """Each level 1×1 to a width of its own, smoothed, scaled up to the finest and concatenated."""

    def __init__(self, settings: Places, sizes: Sequence[int]) -> None:
        super().__init__()
        widths = [scaled(NECK_CHANNELS * settings.at("neck_width", level)) for level in range(len(sizes))]
        self.channels = sum(widths)
        activation = settings.at("activation")
        pairs = list(zip(sizes, widths, strict=True))
        self.lateral = nn.ModuleList(ConvBN(size, width, activation=activation) for size, width in pairs)
        self.smooth = nn.ModuleList(smoothing(settings, level, width) for level, width in enumerate(widths))

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """float32 levels [N, size, H, W], finest first, to [N, channels, H, W] of the finest."""
        own = [smooth(lateral(x)) for smooth, lateral, x in zip(self.smooth, self.lateral, levels, strict=True)]
        return torch.cat([own[0], *(up(each, own[0].shape[-2:]) for each in own[1:])], dim=1)


NECKS: dict[str, type[PyramidNeck] | type[BirdsEyeNeck]] = {"fpn": PyramidNeck, "bev": BirdsEyeNeck}


class Segmenter(nn.Module):
    """Stem, stages, neck over all stages but the first, a 1×1 classifier of pixels, scaled up to the picture."""

    def __init__(self, settings: Places, *, family: str, neck: str, resolution: int | None, classes: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.stem = ConvBN(
            3, scaled(STEM_CHANNELS * settings.at("width")), kernel=3, stride=2, activation=settings.at("activation")
        )
        made, sizes = stages(settings, family)
        self.blocks = nn.Sequential(*made)
        self.neck = NECKS[neck](settings, sizes[1:])
        self.classifier = nn.Conv2d(self.neck.channels, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to logits [N, classes, H, W]."""
        features, levels = self.stem(resized(x, self.resolution)), []
        for stage in self.blocks:
            features = stage(features)
            levels.append(features)
        return up(self.classifier(self.neck(levels[1:])), x.shape[-2:])
