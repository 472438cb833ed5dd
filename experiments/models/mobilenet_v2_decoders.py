"""Decoders over MobileNetV2 that name the class of each pixel: LR-ASPP's and DeepLabv3+'s.

The encoder keeps a sixteenth of the picture's size: its last halving becomes a dilation of 2, and the head of 1280
channels is left out (Sandler et al. 2018, arXiv:1801.04381, section 6.3).
"""

from __future__ import annotations

import torch
from torch import nn

from bitwright.experiments.models.elastic_necks import up
from bitwright.experiments.models.inverted_residuals import ConvBNReLU6, scaled_channels
from bitwright.experiments.models.mobilenet_v2_layers import Block, MobileNetV2

# Indices into `MobileNetV2.features`: the last block at each size, and the first behind the halving that is left out.
_QUARTER, _EIGHTH, _DILATED, _LAST = 3, 6, 14, 17
# At width 1: Howard et al. 2019, arXiv:1905.02244, section 6.4; Chen et al. 2018, arXiv:1802.02611, sections 4.1, 4.3.
_LR_ASPP_CHANNELS, _DEEPLAB_CHANNELS, _SKIP_CHANNELS = 128, 256, 48


def _dilated(features: nn.Sequential) -> nn.Sequential:
    """The layers up to the last block, the halving from 1/16 to 1/32 replaced by a dilation of 2 behind it."""
    for index in range(_DILATED, _LAST + 1):
        for layer in features[index].modules():
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                if layer.stride == (2, 2):
                    layer.stride = (1, 1)
                else:
                    layer.dilation = layer.padding = (2, 2)
    return nn.Sequential(*list(features)[: _LAST + 1])


def _channels_of(block: nn.Module) -> int:
    assert isinstance(block, Block)
    norm = block.conv[-1]
    assert isinstance(norm, nn.BatchNorm2d)
    return norm.num_features


class LRASPP(nn.Module):
    """Deep features times a gate of the picture's mean, scaled up; their classes and those of an eighth are added."""

    skip = _EIGHTH

    def __init__(self, shallow: int, deep: int, *, width: float, classes: int) -> None:
        super().__init__()
        inner = scaled_channels(_LR_ASPP_CHANNELS, width)
        self.head = ConvBNReLU6(deep, inner)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(deep, inner, 1, bias=False), nn.Sigmoid())
        self.low, self.high = nn.Conv2d(shallow, classes, 1), nn.Conv2d(inner, classes, 1)

    def forward(self, shallow: torch.Tensor, deep: torch.Tensor) -> torch.Tensor:
        """float32 [N, shallow, H, W] and [N, deep, H / 2, W / 2] to logits [N, classes, H, W]."""
        gated = self.head(deep) * self.gate(deep)
        logits: torch.Tensor = self.low(shallow) + self.high(up(gated, shallow.shape[-2:]))
        return logits


class DeepLabV3Plus(nn.Module):
    """Deep features beside the picture's mean, scaled up, beside a quarter's; two separable 3×3, then classes."""

    skip = _QUARTER

    def __init__(self, shallow: int, deep: int, *, width: float, classes: int) -> None:
        super().__init__()
        inner, side = scaled_channels(_DEEPLAB_CHANNELS, width), scaled_channels(_SKIP_CHANNELS, width)
        self.head = ConvBNReLU6(deep, inner)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(deep, inner, 1), nn.ReLU6())
        self.join = ConvBNReLU6(2 * inner, inner)
        self.skip_head = ConvBNReLU6(shallow, side)
        layers: list[nn.Module] = []
        for inputs in (inner + side, inner):
            layers += [ConvBNReLU6(inputs, inputs, kernel=3, groups=inputs), ConvBNReLU6(inputs, inner)]
        self.mix = nn.Sequential(*layers)
        self.classifier = nn.Conv2d(inner, classes, 1)

    def forward(self, shallow: torch.Tensor, deep: torch.Tensor) -> torch.Tensor:
        """float32 [N, shallow, H, W] and [N, deep, H / 4, W / 4] to logits [N, classes, H, W]."""
        mean = self.pool(deep).expand(-1, -1, *deep.shape[-2:])
        joined = self.join(torch.cat([self.head(deep), mean], dim=1))
        mixed = self.mix(torch.cat([up(joined, shallow.shape[-2:]), self.skip_head(shallow)], dim=1))
        logits: torch.Tensor = self.classifier(mixed)
        return logits


DECODERS: dict[str, type[LRASPP] | type[DeepLabV3Plus]] = {"lr_aspp": LRASPP, "deeplab_v3_plus": DeepLabV3Plus}


class MobileNetV2Segmenter(nn.Module):
    """The encoder, one of the decoders, its logits scaled up to the picture."""

    def __init__(self, *, width: float = 1.0, decoder: str = "deeplab_v3_plus", classes: int = 11) -> None:
        super().__init__()
        self.features = _dilated(MobileNetV2(width=width).features)
        shallow = DECODERS[decoder].skip
        sizes = (_channels_of(self.features[shallow]), _channels_of(self.features[_LAST]))
        self.decoder = DECODERS[decoder](*sizes, width=width, classes=classes)
        self._skip = shallow

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to logits [N, classes, H, W]; H and W are multiples of 16."""
        features = shallow = x
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index == self._skip:
                shallow = features
        return up(self.decoder(shallow, features), x.shape[-2:])
