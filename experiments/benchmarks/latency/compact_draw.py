"""The third draw: many small networks, whose int8 files are often the slower ones.

They have been predicted, and causes in kernels were named by their errors; none of their families is drawn again.
"""

from __future__ import annotations

from typing import Any

from bitwright.experiments.benchmarks.latency.networks import compact, compact_pictures
from bitwright.experiments.benchmarks.latency.pool import Designs, Variant, from_libraries, of_designs

# family: library: names @ sizes
_LIBRARY = """
resnetaa: timm: resnetaa34d @ 64 96
botnet: timm: botnet26t_256 @ 128
convformer: timm: convformer_s18 @ 96
poolformerv2: timm: poolformerv2_s12 @ 96
focalnet: timm: focalnet_tiny_srf @ 96
davit: timm: davit_tiny @ 96
tnt: timm: tnt_s_legacy_patch16_224 @ 224
twins: timm: twins_svt_small @ 224
convit: timm: convit_tiny @ 224
crossvit: timm: crossvit_tiny_240 @ 240
regnetz: timm: regnetz_005 @ 96 128
rdnet: timm: rdnet_tiny @ 96
tresnet: timm: tresnet_m @ 96
test_byobnet: timm: test_byobnet @ 96 160
test_efficientnet: timm: test_efficientnet test_efficientnet_gn @ 96 160
test_resnet: timm: test_resnet @ 96 160
test_convnext: timm: test_convnext test_convnext2 @ 96 160
test_nfnet: timm: test_nfnet @ 96 160
test_vit: timm: test_vit test_vit3 @ 160
"""
_SMALL, _MAIN, _WIDE = (1, 3, 32, 32), (1, 3, 64, 64), (1, 3, 96, 96)
_OWN: Designs = {
    "cells": (compact.cells, [(_SMALL, (8, 1, "s31p3s")), (_SMALL, (16, 2, "1s33p1")), (_SMALL, (16, 1, "33p13s"))]),
    "harmonic": (compact.harmonic, [(_SMALL, (8, 4, 4)), (_SMALL, (16, 8, 6)), (_MAIN, (16, 12, 8))]),
    "mixed_branches": (compact.mixed_branches, [(_SMALL, (4, 2)), (_SMALL, (8, 3)), (_SMALL, (16, 4))]),
    "gated_separable": (
        compact.gated_separable,
        [(_SMALL, (16, 4, 3)), (_SMALL, (24, 6, 5)), (_MAIN, (32, 4, 3)), (_MAIN, (48, 8, 5))],
    ),
    "preactivated": (compact.preactivated, [(_SMALL, (8, 1)), (_SMALL, (16, 2)), (_SMALL, (32, 1))]),
    "in_network": (compact.in_network, [(_SMALL, (16, 10)), (_SMALL, (48, 10)), (_SMALL, (96, 100))]),
    "of_screens": (compact.of_screens, [((1, 4, 84, 84), (8, 64)), ((1, 4, 84, 84), (32, 512))]),
    "steering": (compact.steering, [((1, 3, 66, 200), (16, 64)), ((1, 3, 66, 200), (24, 100))]),
    "brain_waves": (compact.brain_waves, [((1, 1, 22, 256), (8, 2, 22)), ((1, 1, 64, 128), (16, 2, 64))]),
    "sounds": (compact.sounds, [((1, 64, 1, 128), (32, 4, 11)), ((1, 64, 1, 128), (64, 6, 13)),
                                ((1, 64, 1, 256), (128, 6, 15))]),
    "points": (compact.points, [((1, 3, 1, 128), (16, 128)), ((1, 3, 1, 512), (32, 512)),
                                ((1, 3, 1, 1024), (64, 1024))]),
    "dilated_pyramids": (compact_pictures.dilated_pyramids, [(_MAIN, (16, 3)), (_WIDE, (32, 4)), (_WIDE, (64, 3))]),
    "denoiser": (compact_pictures.denoiser, [((1, 1, 32, 32), (8, 3)), ((1, 1, 48, 48), (24, 5)),
                                             ((1, 1, 64, 64), (48, 4))]),
    "distilled": (compact_pictures.distilled, [(_SMALL, (16, 2)), ((1, 3, 48, 48), (32, 3)), (_MAIN, (48, 2))]),
    "nested_decoder": (compact_pictures.NestedDecoder, [(_SMALL, (8,)), (_MAIN, (16,)), (_WIDE, (24,))]),
    "weighted_fusion": (compact_pictures.WeightedFusion, [(_MAIN, (16,)), (_WIDE, (32,)), ((1, 3, 128, 128), (48,))]),
}  # fmt: skip


# More sizes, so that there are 100 networks.
_MORE: dict[str, list[tuple[tuple[int, ...], tuple[Any, ...]]]] = {
    "cells": [(_SMALL, (32, 1, "13s3p1")), (_MAIN, (16, 1, "s33s3p")), (_SMALL, (12, 3, "3ss1p3"))],
    "harmonic": [(_SMALL, (12, 6, 8)), (_WIDE, (16, 8, 4))],
    "mixed_branches": [(_MAIN, (8, 2)), (_SMALL, (24, 2))],
    "gated_separable": [(_SMALL, (64, 6, 3)), (_WIDE, (24, 6, 3))],
    "preactivated": [(_MAIN, (16, 1)), (_SMALL, (12, 3))],
    "in_network": [(_MAIN, (32, 10)), (_SMALL, (24, 20))],
    "of_screens": [((1, 4, 84, 84), (16, 256))],
    "steering": [((1, 3, 66, 200), (32, 200))],
    "brain_waves": [((1, 1, 22, 512), (16, 2, 22))],
    "sounds": [((1, 64, 1, 96), (48, 5, 9))],
    "points": [((1, 3, 1, 256), (24, 256))],
    "dilated_pyramids": [(_MAIN, (48, 4)), (_WIDE, (16, 6))],
    "denoiser": [((1, 1, 96, 96), (16, 3)), ((1, 1, 32, 32), (32, 6))],
    "distilled": [((1, 3, 48, 48), (16, 3)), (_SMALL, (32, 4))],
    "nested_decoder": [(_MAIN, (8,)), (_SMALL, (24,))],
    "weighted_fusion": [(_WIDE, (24,)), (_MAIN, (64,))],
}


def compact_draw() -> tuple[Variant, ...]:
    """Every variant, in a fixed order."""
    designs = {family: (make, [*members, *_MORE[family]]) for family, (make, members) in _OWN.items()}
    return (*from_libraries(_LIBRARY, "classification"), *of_designs(designs))
