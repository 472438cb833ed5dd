"""The networks on which modelled cost is compared: families apart, weights seeded or real, four of them held out.

Tuned on: residual, inverted residual, squeeze-and-expand with concatenations, a small detector with skips over scales.
Held out: a U-shaped segmenter, 5 x 5 depthwise at 224, inception branches, a tiny person detector at 96.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bitwright.experiments.benchmarks.float_networks import float_network
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.peers.workers.networks import torchvision_models
from bitwright.quant.capture import capture
from bitwright.quant.graph import Graph
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

SEED = 0


@dataclass(frozen=True, kw_only=True)
class CostNetwork:
    """A network of the comparison.

    Attributes:
        name: of the architecture.
        side: of its square input with three channels.
        build: from the folder of the peers' environments.
        held_out: kept for the end; nothing was decided by looking at it.
    """

    name: str
    side: int
    build: Callable[[Path], nn.Module]
    held_out: bool = False

    def graph(self, home: Path) -> Graph:
        """Captured, batch norms folded."""
        torch.manual_seed(SEED)
        network = self.build(home).eval().requires_grad_(False)
        return fold_batch_norm(capture(network, (torch.zeros(1, 3, self.side, self.side),))).graph


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU6
) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)]
    layers.append(nn.BatchNorm2d(outputs))
    if act is not None:
        layers.append(act())
    return nn.Sequential(*layers)


class TinyDetector(nn.Module):
    """A detector in the manner of YOLOv3-tiny: six strided stages, upsampling, a skip, two heads. 256 x 256."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 32, 64, 128, 256)
        self.stem = _conv(3, widths[0], 3, act=nn.ReLU)
        self.stages = nn.ModuleList(_conv(a, b, 3, act=nn.ReLU) for a, b in itertools.pairwise(widths))
        self.pool = nn.MaxPool2d(2)
        self.deep = nn.Sequential(_conv(256, 512, 3, act=nn.ReLU), _conv(512, 128, 1, act=nn.ReLU))
        self.coarse = nn.Sequential(_conv(128, 256, 3, act=nn.ReLU), nn.Conv2d(256, 255, 1))
        self.lateral = _conv(128, 64, 1, act=nn.ReLU)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.fine = nn.Sequential(_conv(64 + 256, 128, 3, act=nn.ReLU), nn.Conv2d(128, 255, 1))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[1, 3, 256, 256] → heads at strides 32 and 16."""
        x = self.stem(image)
        for stage in self.stages:
            x = stage(self.pool(x))
        deep = self.deep(self.pool(x))
        return self.coarse(deep), self.fine(torch.cat([self.up(self.lateral(deep)), x], 1))


class SmallUNet(nn.Module):
    """A U-Net with four scales: pairs of 3 x 3 convolutions, pooling, nearest upsampling, skips. 128 x 128."""

    def __init__(self, width: int = 24, classes: int = 19) -> None:
        super().__init__()
        widths = [width << level for level in range(4)]
        self.down = nn.ModuleList(self._pair(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(
            self._pair(deep + skip, skip) for deep, skip in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.pool, self.grow = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _pair(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(_conv(inputs, outputs, 3, act=nn.ReLU), _conv(outputs, outputs, 3, act=nn.ReLU))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[1, 3, 128, 128] → logits [1, classes, 128, 128]."""
        skips, x = [], image
        for level, pair in enumerate(self.down):
            x = pair(self.pool(x) if level else x)
            skips.append(x)
        for pair, skip in zip(self.up, skips[-2::-1], strict=True):
            x = pair(torch.cat([self.grow(x), skip], 1))
        logits: torch.Tensor = self.head(x)
        return logits


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; the sum where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = inputs * expand
        widen = [_conv(inputs, inner, 1)] if expand > 1 else []
        self.layers = nn.Sequential(
            *widen, _conv(inner, inner, kernel, stride, inner), _conv(inner, outputs, 1, act=None)
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, inputs, h, w] → [1, outputs, h / stride, w / stride]."""
        y: torch.Tensor = self.layers(x)
        return x + y if self.adds else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excite, with ReLU6. 224 x 224."""

    # expand, width, repeats, stride, kernel
    STAGES = (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv(3, 32, 3, 2)]
        width = 32
        for expand, outputs, repeats, stride, kernel in self.STAGES:
            for repeat in range(repeats):
                blocks.append(InvertedResidual(width, outputs, kernel, 1 if repeat else stride, expand))
                width = outputs
        self.features = nn.Sequential(*blocks, _conv(width, 1280, 1))
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(1280, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[1, 3, 224, 224] → logits [1, 1000]."""
        logits: torch.Tensor = self.head(self.pool(self.features(image)).flatten(1))
        return logits


class PersonDetector(nn.Module):
    """MobileNetV1 at a quarter of its width, as in MLPerf Tiny's visual wake words. 96 x 96."""

    PLAN = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *((128, 1),) * 5, (256, 2), (256, 1))

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv(3, 8, 3, 2, act=nn.ReLU)]
        width = 8
        for outputs, stride in self.PLAN:
            blocks += [_conv(width, width, 3, stride, width, act=nn.ReLU), _conv(width, outputs, 1, act=nn.ReLU)]
            width = outputs
        self.features = nn.Sequential(*blocks)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(width, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[1, 3, 96, 96] → logits [1, 2]."""
        logits: torch.Tensor = self.head(self.pool(self.features(image)).flatten(1))
        return logits


def _torchvision(name: str, **options: object) -> Callable[[Path], nn.Module]:
    def build(home: Path) -> nn.Module:
        install_library(home)
        network: nn.Module = getattr(torchvision_models(str(home / LIBRARY)), name)(weights=None, **options)
        return network

    return build


NETWORKS = (
    CostNetwork(name="resnet18", side=224, build=lambda home: float_network("resnet18", home)),
    CostNetwork(name="mobilenet_v2", side=224, build=lambda home: float_network("mobilenet_v2", home)),
    CostNetwork(name="squeezenet1_1", side=224, build=_torchvision("squeezenet1_1")),
    CostNetwork(name="tiny_detector", side=256, build=lambda home: TinyDetector()),
    CostNetwork(name="small_unet", side=128, build=lambda home: SmallUNet(), held_out=True),
    CostNetwork(name="efficientnet_lite0", side=224, build=lambda home: EfficientNetLite(), held_out=True),
    CostNetwork(name="googlenet", side=224, build=_torchvision("googlenet", init_weights=True), held_out=True),
    CostNetwork(name="person_detector", side=96, build=lambda home: PersonDetector(), held_out=True),
)
