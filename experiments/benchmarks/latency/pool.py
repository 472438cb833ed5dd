"""The pool that test networks are drawn from: published architectures and our own, each in several sizes.

A variant is one architecture at one width and resolution; a family is what was designed together. Networks of the
`DEVELOPING` families are for tuning the predictor and are never drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bitwright.experiments.benchmarks.architectures import Architecture, build
from bitwright.experiments.benchmarks.latency.networks import dense_prediction as dense
from bitwright.experiments.benchmarks.latency.networks import detectors, small, tokens

_SEED = 0
# family: what makes its networks; (shape of the input, arguments) of each
Designs = dict[str, tuple[Callable[..., torch.nn.Module], list[tuple[tuple[int, ...], tuple[Any, ...]]]]]
DEVELOPING = frozenset({"resnet", "mobilenetv2", "squeezenet", "vit", "residual32"})


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One network of the pool.

    Attributes:
        name: unique in the pool; a file name.
        family: what intervals are clustered by.
        make: returns the module in eval mode and its arguments, given the folder with torchvision and timm.
    """

    name: str
    family: str
    make: Callable[[Path], tuple[torch.nn.Module, tuple[Any, ...]]] = field(compare=False, repr=False)


# family: library: names @ sizes. Several sizes of one architecture are several shapes of the same kernels.
_LIBRARY = """
resnet: torchvision: resnet18 @ 96 224
mobilenetv2: torchvision: mobilenet_v2 @ 96 224
squeezenet: torchvision: squeezenet1_1 @ 96 224
vit: timm: deit_tiny_patch16_224 @ 224
alexnet: torchvision: alexnet @ 96 224
vgg: torchvision: vgg11_bn vgg13 @ 64 128
densenet: torchvision: densenet121 @ 64 160
efficientnet: torchvision: efficientnet_b0 efficientnet_b1 @ 96 192
efficientnet: timm: efficientnet_lite0 efficientnet_es @ 128 224
efficientnetv2: torchvision: efficientnet_v2_s @ 96 160
inception: torchvision: googlenet @ 96 224
inception: torchvision: inception_v3 @ 128
mnasnet: torchvision: mnasnet0_5 mnasnet1_0 @ 96 224
mnasnet: timm: semnasnet_075 mnasnet_small @ 128
mobilenetv3: torchvision: mobilenet_v3_small mobilenet_v3_large @ 64 128 224
mobilenetv1: timm: mobilenetv1_100 @ 96 160 224
mobilenetv4: timm: mobilenetv4_conv_small mobilenetv4_conv_small_050 @ 96 192
regnet: torchvision: regnet_x_400mf regnet_y_400mf @ 96 160
regnet: timm: regnetx_002 regnety_002 regnety_008 @ 64 224
resnext: torchvision: resnext50_32x4d @ 96 160
seresnet: timm: seresnet18 seresnext26d_32x4d @ 64 128
shufflenetv2: torchvision: shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 @ 96 224
convnext: timm: convnext_atto convnext_femto @ 96 192
convnext: timm: convnextv2_atto @ 96
csp: timm: cspresnet50 cspdarknet53 @ 96 128
darknet: timm: darknet21 darknet53 @ 96 160
dla: timm: dla34 dla46_c dla46x_c @ 96 160
vovnet: timm: ese_vovnet19b_dw ese_vovnet19b_slim @ 96 160
ghostnet: timm: ghostnet_050 ghostnet_100 ghostnet_130 @ 96 192
repvgg: timm: repvgg_a0 repvgg_a1 @ 64 128
mobileone: timm: mobileone_s0 mobileone_s1 @ 96 192
res2net: timm: res2net50_26w_4s @ 96 128
lcnet: timm: lcnet_050 lcnet_100 lcnet_150 @ 96 224
tinynet: timm: tinynet_a tinynet_c tinynet_e @ 96 160
mixnet: timm: mixnet_s mixnet_m @ 96 160
rexnet: timm: rexnet_100 rexnetr_100 @ 96 160
fbnet: timm: fbnetc_100 hardcorenas_a @ 96 192
selecsls: timm: selecsls42b @ 96 192
hrnet: timm: hrnet_w18_small @ 96 160
gernet: timm: gernet_s gernet_m @ 96 160
fasternet: timm: fasternet_t0 fasternet_t1 @ 96 192
starnet: timm: starnet_s1 starnet_s050 @ 96 192
xception: timm: xception41 @ 96
skresnet: timm: skresnet18 @ 96 160
resmlp: timm: resmlp_12_224 @ 224
poolformer: timm: poolformer_s12 @ 96 160
swin: torchvision: swin_t @ 96 160
pvt: timm: pvt_v2_b0 @ 224
levit: timm: levit_128s @ 224
efficientformer: timm: efficientformer_l1 @ 224
mobilevit: timm: mobilevit_xxs @ 128 256
edgenext: timm: edgenext_xx_small @ 128 224
efficientvit: timm: efficientvit_b0 @ 128 224
"""
_SEGMENTATION = """
deeplab: torchvision: deeplabv3_mobilenet_v3_large @ 96 160
lraspp: torchvision: lraspp_mobilenet_v3_large @ 96 224
fcn: torchvision: fcn_resnet50 @ 64
"""


def pool() -> tuple[Variant, ...]:
    """Every variant, in a fixed order."""
    return (*from_libraries(_LIBRARY, "classification"), *from_libraries(_SEGMENTATION, "segmentation"), *_own())


def from_libraries(text: str, task: str) -> Iterator[Variant]:
    """Variants of torchvision and timm, from lines `family: library: names @ sizes`."""
    for line in text.split("\n"):
        if not line:
            continue
        family, library, rest = (part.strip() for part in line.split(":"))
        names, _, sizes = rest.partition("@")
        for name in names.split():
            for size in map(int, sizes.split()):
                architecture = Architecture(name=name, library=library, task=task, size=size)
                yield Variant(name=f"{name}-{size}", family=family, make=partial(build, architecture))


def seeded_variant(
    family: str, name: str, shape: tuple[int, ...], make: Callable[..., torch.nn.Module], *settings: Any
) -> Variant:
    """A network of our own with seeded random weights."""

    def seeded(_: Path) -> tuple[torch.nn.Module, tuple[Any, ...]]:
        torch.manual_seed(_SEED)
        return make(*settings).eval().requires_grad_(False), (torch.randn(shape),)

    return Variant(name=name, family=family, make=seeded)


def of_designs(designs: Designs) -> Iterator[Variant]:
    """Networks of our own, named after family, arguments and the last side of their input."""
    for family, (make, members) in designs.items():
        for shape, arguments in members:
            name = f"{family}-{'x'.join(map(str, arguments))}-{shape[-1]}"
            yield seeded_variant(family, name, shape, make, *arguments)


def _own() -> Iterator[Variant]:
    yield from _for_small_inputs()
    yield from _detectors()
    yield from _dense()
    yield from _of_tokens()


_PICTURE32 = (1, 3, 32, 32)


def _for_small_inputs() -> Iterator[Variant]:
    for width, depth in ((16, 3), (8, 1), (32, 2)):
        yield seeded_variant("residual32", f"residual32-{width}x{depth}", _PICTURE32, small.residual32, width, depth)
    for width, depth in ((8, 1), (16, 1), (16, 3), (32, 2), (64, 2)):
        yield seeded_variant("gated32", f"gated32-{width}x{depth}", _PICTURE32, small.residual32, width, depth, True)
    for width, depth, pooling in ((8, 1, "max"), (16, 1, "stride"), (16, 2, "max"), (32, 2, "max"), (64, 2, "stride")):
        name = f"plain32-{width}x{depth}-{pooling}"
        yield seeded_variant("plain32", name, _PICTURE32, small.plain32, width, depth, pooling)
    for width, depth, kernel, activation in (
        (8, 1, 3, "relu"),
        (12, 2, 3, "relu6"),
        (16, 2, 5, "hardswish"),
        (24, 3, 3, "relu"),
        (32, 2, 3, "silu"),
        (48, 3, 5, "relu"),
        (64, 4, 3, "relu6"),
    ):
        name = f"separable32-{width}x{depth}k{kernel}-{activation}"
        yield seeded_variant("separable32", name, _PICTURE32, small.separable32, width, depth, kernel, activation)
    for growth, depth in ((8, 3), (12, 4), (12, 8), (16, 6), (24, 6)):
        yield seeded_variant("dense32", f"dense32-{growth}x{depth}", _PICTURE32, small.dense32, growth, depth)
    for width, depth in ((16, 1), (24, 2), (32, 2), (64, 2), (96, 3)):
        yield seeded_variant("branches32", f"branches32-{width}x{depth}", _PICTURE32, small.branches32, width, depth)
    for width, depth in ((32, 3), (64, 4), (172, 4), (276, 5)):
        yield seeded_variant("keyword", f"keyword-{width}x{depth}", (1, 1, 49, 10), small.keyword, width, depth)
    for sizes in ((640, 128, 128, 8, 128, 128, 640), (48, 256, 256, 12), (784, 512, 512, 10), (1024, 2048, 2048, 256)):
        name = "perceptron-" + "-".join(map(str, sizes[:3]))
        yield seeded_variant("perceptron", name, (1, sizes[0]), small.perceptron, sizes)


def _detectors() -> Iterator[Variant]:
    for width, depth, activation, size in (
        (8, 1, "silu", 96),
        (8, 1, "relu", 160),
        (12, 1, "hardswish", 128),
        (16, 1, "silu", 192),
        (16, 1, "leaky", 128),
        (16, 2, "relu", 256),
        (24, 2, "silu", 160),
    ):
        name = f"yolo-{width}x{depth}-{activation}-{size}"
        yield seeded_variant("yolo", name, (1, 3, size, size), detectors.CrossStageDetector, width, depth, activation)
    for width, size in ((4, 96), (8, 160), (16, 128), (16, 256)):
        yield seeded_variant(
            "yolo_tiny", f"yolo_tiny-{width}-{size}", (1, 3, size, size), detectors.TinyDetector, width
        )


def _dense() -> Iterator[Variant]:
    for width, levels, up, size in (
        (8, 3, "deconv", 64),
        (8, 4, "nearest", 96),
        (16, 3, "nearest", 96),
        (16, 4, "deconv", 128),
        (32, 4, "nearest", 64),
    ):
        yield seeded_variant(
            "unet", f"unet-{width}x{levels}-{up}-{size}", (1, 3, size, size), dense.UNet, width, levels, up
        )
    for width, depth, size in ((16, 1, 64), (32, 2, 64), (32, 3, 128), (64, 2, 96)):
        yield seeded_variant(
            "birds_eye", f"birds_eye-{width}x{depth}-{size}", (1, 32, size, size), dense.BirdsEyeNeck, width, depth
        )
    for width, depth, size in ((16, 1, 96), (24, 2, 128), (32, 2, 160), (64, 1, 128)):
        yield seeded_variant(
            "fusion", f"fusion-{width}x{depth}-{size}", (1, 3, size, size), dense.FeatureFusion, width, depth
        )
    for width, size in ((16, 128), (32, 128), (32, 256)):
        yield seeded_variant(
            "fast_segmenter", f"fast_segmenter-{width}-{size}", (1, 3, size, size), dense.FastSegmenter, width
        )
    for width, depth, size in ((8, 3, 96), (16, 4, 96), (16, 6, 160)):
        yield seeded_variant(
            "factorized", f"factorized-{width}x{depth}-{size}", (1, 3, size, size), dense.factorized, width, depth
        )
    for width, depth, factor, size in ((16, 2, 2, 48), (32, 3, 3, 64), (64, 4, 2, 64)):
        name = f"super_resolution-{width}x{depth}x{factor}-{size}"
        yield seeded_variant("super_resolution", name, (1, 1, size, size), dense.super_resolution, width, depth, factor)
    for width, depth, size in ((16, 1, 96), (32, 2, 128), (64, 2, 96)):
        yield seeded_variant(
            "heat_maps", f"heat_maps-{width}x{depth}-{size}", (1, 3, size, size), dense.heat_maps, width, depth
        )


def _of_tokens() -> Iterator[Variant]:
    for channels, depth, size, patch in ((64, 4, 64, 8), (128, 6, 96, 8), (256, 4, 128, 16)):
        name = f"mixer-{channels}x{depth}-{size}"
        yield seeded_variant("mixer", name, (1, 3, size, size), tokens.mixer, channels, depth, size, patch)
    for channels, depth, heads, count in ((64, 2, 4, 32), (128, 4, 4, 64), (256, 4, 8, 128), (192, 6, 3, 50)):
        name = f"encoder-{channels}x{depth}-{count}"
        yield seeded_variant("encoder", name, (1, count, 64), tokens.encoder, channels, depth, heads)
    for channels, depth, kernel, size in ((64, 4, 7, 64), (128, 6, 9, 96), (256, 4, 5, 128)):
        name = f"conv_mixer-{channels}x{depth}k{kernel}-{size}"
        yield seeded_variant("conv_mixer", name, (1, 3, size, size), tokens.conv_mixer, channels, depth, kernel, 4)
