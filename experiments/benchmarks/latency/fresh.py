"""Networks of families that were in no earlier draw: of cars and robots mostly, many of them small or full of gates.

Written down before any of them was predicted or measured.
"""

from __future__ import annotations

from bitwright.experiments.benchmarks.latency.networks import driving, gated, robots
from bitwright.experiments.benchmarks.latency.pool import Designs, Variant, from_libraries, of_designs

# family: library: names @ sizes
_LIBRARY = """
cpubone: timm: cpubone_nano @ 96 160
lcnetv2: timm: lcnetv2_small @ 96 192
cspnext: timm: cspnext_tiny @ 96 160
fbnetv3: timm: fbnetv3_b @ 96 160
efficientformerv2: timm: efficientformerv2_s0 @ 224
iformer: timm: iformer_t @ 224
lowformer: timm: lowformer_b0 @ 128 224
nextvit: timm: nextvit_small @ 96
coatnet: timm: coatnet_nano_rw_224 @ 224
gcvit: timm: gcvit_xxtiny @ 224
eva: timm: eva02_tiny_patch14_224 @ 224
halonet: timm: haloregnetz_b @ 224
lambdanet: timm: lambda_resnet26t @ 128
vit_hybrid: timm: vit_tiny_r_s16_p8_224 @ 224
efficientvim: timm: efficientvim_m1 @ 224
"""


def _square(side: int, channels: int = 3) -> tuple[int, ...]:
    return (1, channels, side, side)


_OF_CARS: Designs = {
    "lane_rows": (driving.lane_rows, [((1, 3, height, height * 5 // 2), (width, hidden, height))
                                      for width, hidden, height in ((8, 64, 64), (16, 128, 64), (16, 256, 128),
                                                                    (32, 256, 128))]),
    "range_doppler": (driving.RangeDoppler, [((1, 8, 64, 16), (8, 16, 16)), ((1, 8, 64, 32), (16, 32, 32)),
                                             ((1, 8, 128, 32), (32, 48, 32)), ((1, 8, 128, 64), (24, 64, 64))]),
    "pillar_features": (driving.PillarFeatures, [((1, 9, 256, 8), (16, 16, 8, 1)), ((1, 9, 1024, 8), (16, 32, 8, 2)),
                                                 ((1, 9, 1024, 16), (32, 32, 16, 2)),
                                                 ((1, 9, 2304, 12), (48, 48, 12, 3))]),
    "occupancy": (driving.occupancy, [(_square(16, 24), (8, 4)), (_square(32, 24), (16, 8)), (_square(48, 24), (32, 8)),
                                      (_square(64, 24), (24, 16))]),
    "polylines": (driving.Polylines, [((1, 16, 10, 8), (16, 2)), ((1, 32, 10, 8), (32, 3)), ((1, 64, 20, 8), (64, 3)),
                                      ((1, 128, 10, 8), (32, 2))]),
    "range_images": (driving.RangeImages, [((1, 5, 16, 128), (8,)), ((1, 5, 32, 256), (16,)), ((1, 5, 32, 128), (32,)),
                                           ((1, 5, 64, 256), (24,))]),
    "traffic_signs": (driving.TrafficSigns, [(_square(32), (6, 32)), (_square(32), (16, 64)), (_square(32), (38, 100)),
                                             (_square(32), (108, 200))]),
    "anchor_heads": (driving.AnchorHeads, [(_square(64), (8, 4)), (_square(96), (16, 4)), (_square(128), (16, 11)),
                                           (_square(160), (32, 11))]),
}  # fmt: skip
_OF_ROBOTS: Designs = {
    "key_points": (robots.KeyPoints, [(_square(64), (8, 1)), (_square(96), (16, 1)), (_square(128), (24, 2)),
                                      (_square(160), (32, 1))]),
    "fast_depth": (robots.FastDepth, [(_square(64), (8, 3, 5)), (_square(96), (16, 4, 5)), (_square(128), (16, 5, 3)),
                                      (_square(160), (24, 4, 5))]),
    "stacked_flow": (robots.StackedFlow, [(_square(32, 6), (4,)), (_square(64, 6), (8,)), (_square(96, 6), (16,)),
                                          (_square(128, 6), (24,))]),
    "inertial": (robots.inertial, [((1, 6, 1, 64), (4, 3)), ((1, 6, 1, 128), (8, 3)), ((1, 6, 1, 128), (16, 6)),
                                   ((1, 6, 1, 256), (32, 3))]),
    "grasps": (robots.Grasps, [(_square(48, 1), (8,)), (_square(96, 1), (16,)), (_square(144, 1), (16,)),
                               (_square(96, 1), (32,))]),
    "impala": (robots.impala, [(_square(32, 4), (8, 1, 32)), (_square(64, 4), (16, 1, 64)),
                               (_square(64, 4), (16, 2, 64)), (_square(72, 4), (32, 2, 72))]),
    "vibration": (robots.vibration, [((1, 1, 1, 1024), (8, 3, 1024)), ((1, 1, 1, 2048), (16, 4, 2048)),
                                     ((1, 1, 1, 4096), (32, 5, 4096))]),
    "dense_policy": (robots.DensePolicy, [((1, 24), (24, 64, 3)), ((1, 48), (48, 128, 3)), ((1, 48), (48, 256, 4)),
                                          ((1, 96), (96, 512, 3))]),
    "floor_finder": (robots.floor_finder, [((1, 3, 64, 48), (8, 1)), ((1, 3, 64, 96), (16, 1)),
                                           ((1, 3, 64, 160), (24, 2)), ((1, 3, 64, 320), (32, 2))]),
}  # fmt: skip
_OF_GATES: Designs = {
    "bilateral": (gated.Bilateral, [(_square(64), (8,)), (_square(96), (16,)), (_square(128), (24,)),
                                    (_square(160), (32,))]),
    "context_guided": (gated.context_guided, [(_square(32), (16, 1)), (_square(48), (16, 3)), (_square(64), (24, 2)),
                                              (_square(96), (32, 3))]),
    "landmarks": (gated.Landmarks, [(_square(32), (8, 1)), (_square(64), (16, 2)), (_square(112), (16, 2)),
                                    (_square(112), (32, 3))]),
    "blaze": (gated.blaze, [(_square(32), (8, 1)), (_square(64), (16, 1)), (_square(96), (24, 2)),
                            (_square(128), (24, 3))]),
    "block_attention": (gated.block_attention, [(_square(32), (8, 1)), (_square(32), (16, 1)), (_square(32), (16, 2)),
                                                (_square(48), (32, 2))]),
    "omni_scale": (gated.omni_scale, [(_square(32), (16, 1)), (_square(48), (16, 2)), (_square(64), (32, 1)),
                                      (_square(96), (32, 2))]),
    "broadcasted": (gated.broadcasted, [((1, 1, 40, 64), (8, 2)), ((1, 1, 40, 96), (12, 3)),
                                        ((1, 1, 40, 128), (16, 3)), ((1, 1, 40, 128), (32, 4))]),
    "coordinate_gates": (gated.coordinate_gates, [(_square(32), (16, 2)), (_square(32), (24, 4)),
                                                  (_square(64), (32, 3)), (_square(96), (48, 4))]),
    "pyramid_attention": (gated.pyramid_attention, [(_square(32), (16, 1)), (_square(32), (32, 2)),
                                                    (_square(64), (32, 3)), (_square(64), (64, 2))]),
    "latent_queries": (gated.LatentQueries, [((1, 16, 32), (32, 4, 2)), ((1, 32, 32), (64, 8, 3)),
                                             ((1, 64, 32), (128, 16, 4)), ((1, 128, 32), (64, 32, 3))]),
}  # fmt: skip


def fresh() -> tuple[Variant, ...]:
    """Every variant, in a fixed order."""
    own = (each for designs in (_OF_CARS, _OF_ROBOTS, _OF_GATES) for each in of_designs(designs))
    return (*from_libraries(_LIBRARY, "classification"), *own)
