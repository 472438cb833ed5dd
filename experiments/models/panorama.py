r"""A small drivable-area network over two cameras, which three accelerators refuse for three reasons.

    bitwright lint bitwright.experiments.models.panorama:build \
        --target edge-tpu --target orin-dla --target ethos-u55-128

The Edge TPU has no leaky ReLU, so that everything behind the first one runs on its host; the DLA of an Orin
concatenates along the channels alone; the Ethos-U55 resizes by 2 at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

_HEIGHT, _WIDTH = 96, 128


class Stage(nn.Sequential):
    """Convolution of stride 2, batch norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.125))


class Panorama(nn.Module):
    """One backbone over both pictures, their features side by side, and a map of what can be driven on."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(Stage(3, 16), Stage(16, 32))
        self.across = nn.Conv2d(32, 32, 3, 1, 1)
        self.area = nn.Conv2d(32, 4, 1)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """float32 [1, 3, H, W] twice to logits [1, 4, H, 2 W]."""
        both = torch.cat([self.backbone(left), self.backbone(right)], dim=3)
        area = self.area(F.relu(self.across(both)))
        return F.interpolate(area, scale_factor=4, mode="bilinear", align_corners=False)


def build() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """The network with fresh weights, and two pictures."""
    shape = (1, 3, _HEIGHT, _WIDTH)
    return Panorama().eval(), (torch.randn(shape), torch.randn(shape))
