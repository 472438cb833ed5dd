"""Networks of families that no table and no predictor was ever tuned on: published ones and our own.

Written down after the predictor and the tables' hashes were fixed; a family here has none in the pool.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from bitwright.experiments.benchmarks.latency.pool import Variant, from_libraries, seeded_variant

# family: library: names @ sizes
_UNSEEN = """
resnest: timm: resnest14d @ 96 160
hgnet: timm: hgnetv2_b0 @ 96 160
repghostnet: timm: repghostnet_050 repghostnet_100 @ 96 192
repvit: timm: repvit_m0_9 @ 96 160
tinyvit: timm: tiny_vit_5m_224 @ 224
fastvit: timm: fastvit_t8 @ 96 192
coat: timm: coat_lite_tiny @ 224
gmlp: timm: gmlp_ti16_224 @ 224
edgetpu: timm: mobilenet_edgetpu_v2_xs mobilenet_edgetpu_100 @ 96 192
pit: timm: pit_ti_224 @ 224
visformer: timm: visformer_tiny @ 224
xcit: timm: xcit_nano_12_p16_224 @ 224
ecaresnet: timm: ecaresnet26t @ 96 160
dpn: timm: dpn48b @ 96 160
spnasnet: timm: spnasnet_100 @ 96 192
swiftformer: timm: swiftformer_xs @ 96 224
mambaout: timm: mambaout_femto @ 96 160
resnetv2: timm: resnetv2_18 resnetv2_18d @ 96 160
gcresnext: timm: gcresnext26ts @ 96 160
nfnet: timm: nf_regnet_b0 nf_resnet26 @ 96 160
inceptionnext: timm: inception_next_atto @ 96 192
mobilevitv2: timm: mobilevitv2_050 @ 128 256
resnetblur: timm: resnetblur18 @ 96 160
efficientvit_m: timm: efficientvit_m0 @ 224
shvit: timm: shvit_s1 @ 224
cait: timm: cait_xxs24_224 @ 224
"""


def unseen() -> tuple[Variant, ...]:
    """Every variant, in a fixed order."""
    return (*from_libraries(_UNSEEN, "classification"), *_own())


def _own() -> Iterator[Variant]:
    for width, depth, length in ((32, 4, 128), (64, 6, 256)):
        yield seeded_variant(
            "temporal", f"temporal-{width}x{depth}-{length}", (1, 24, 1, length), _temporal, width, depth
        )
    for width, depth, size in ((8, 3, 64), (24, 3, 96), (32, 4, 128)):
        yield seeded_variant(
            "autoencoder", f"autoencoder-{width}x{depth}-{size}", (1, 3, size, size), _autoencoder, width, depth
        )
    for width, depth, size in ((16, 2, 64), (32, 3, 96)):
        yield seeded_variant(
            "hourglass", f"hourglass-{width}x{depth}-{size}", (1, 3, size, size), _hourglass, width, depth
        )
    for width, layers in ((64, 3), (256, 6)):
        yield seeded_variant("residual_mlp", f"residual_mlp-{width}x{layers}", (1, width), _residual_mlp, width, layers)
    for width, depth, size in ((12, 3, 48), (32, 4, 64)):
        yield seeded_variant(
            "gated_conv", f"gated_conv-{width}x{depth}-{size}", (1, 3, size, size), _gated, width, depth
        )


class _Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.body(x)
        return y


def _temporal(width: int, depth: int) -> nn.Module:
    """Dilated convolutions over time, each with its residual (Bai, Kolter, Koltun 2018)."""
    layers: list[nn.Module] = [nn.Conv2d(24, width, 1)]
    for level in range(depth):
        dilation = 2**level
        inner = nn.Conv2d(width, width, (1, 3), padding=(0, dilation), dilation=(1, dilation))
        layers.append(_Residual(nn.Sequential(inner, nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU())))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 12))


def _autoencoder(width: int, depth: int) -> nn.Module:
    """Strided convolutions down, nearest neighbours and convolutions up."""
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    channels = 3
    for level in range(depth):
        out = width * 2**level
        down += [nn.Conv2d(channels, out, 3, 2, 1), nn.BatchNorm2d(out), nn.LeakyReLU(0.1)]
        up = [nn.Upsample(scale_factor=2), nn.Conv2d(out, channels, 3, 1, 1), nn.ReLU() if level else nn.Sigmoid(), *up]
        channels = out
    return nn.Sequential(*down, *up)


class _Level(nn.Module):
    """One level of an hourglass (Newell, Yang, Deng 2016): straight on, and through half the resolution."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.straight = _Residual(_pair(width))
        self.down = nn.Sequential(nn.MaxPool2d(2), _Residual(_pair(width)))
        self.inner = _Level(width, depth - 1) if depth > 1 else _Residual(_pair(width))
        self.up = nn.Sequential(_Residual(_pair(width)), nn.Upsample(scale_factor=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.straight(x) + self.up(self.inner(self.down(x)))
        return y


def _pair(width: int) -> nn.Module:
    half = width // 2
    return nn.Sequential(
        nn.Conv2d(width, half, 1), nn.ReLU(), nn.Conv2d(half, half, 3, 1, 1), nn.ReLU(), nn.Conv2d(half, width, 1)
    )


def _hourglass(width: int, depth: int) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, width, 7, 2, 3), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(stem, _Level(width, depth), nn.Conv2d(width, 16, 1))


def _residual_mlp(width: int, layers: int) -> nn.Module:
    """Tabular data: linear layers with residuals."""
    blocks = [
        _Residual(nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)))
        for _ in range(layers)
    ]
    return nn.Sequential(*blocks, nn.Linear(width, 2))


class _Gate(nn.Module):
    """Features times the sigmoid of others (gated convolution, Yu et al. 2019)."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(inside, out, 3, 1, 1)
        self.gate = nn.Conv2d(inside, out, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.relu(self.features(x)) * torch.sigmoid(self.gate(x))
        return y


def _gated(width: int, depth: int) -> nn.Module:
    gates = [_Gate(3 if not level else width, width) for level in range(depth)]
    return nn.Sequential(*gates, nn.Conv2d(width, 3, 3, 1, 1))
