"""Resampling of images in ONNX."""

from __future__ import annotations

from bitwright.quant.export.onnx_builder import OnnxBuilder
from bitwright.quant.export.onnx_translators.registry import (
    translates,
)
from bitwright.quant.graph import Node


@translates(
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"),
    *("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"),
)
def _resize(b: OnnxBuilder, node: Node) -> None:
    out = b.result(node)
    sizes = b.constant(out, list(b.shape(node.outputs[0])))
    if "nearest" in node.op:
        options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        aligned = bool(node.attributes["align_corners"])
        options = {"mode": "linear", "coordinate_transformation_mode": "align_corners" if aligned else "half_pixel"}
    b.emit("Resize", [b.operand(node, 0), "", "", sizes], out, **options)


@translates("pixel_shuffle")
def _pixel_shuffle(b: OnnxBuilder, node: Node) -> None:
    b.emit(
        "DepthToSpace", [b.operand(node, 0)], b.result(node), blocksize=node.attributes["upscale_factor"], mode="CRD"
    )


@translates("pixel_unshuffle", "channel_shuffle")
def _shuffle(b: OnnxBuilder, node: Node) -> None:
    """SpaceToDepth orders its channels otherwise than torch, so both are reshapes around a transpose."""
    out, (n, c, h, w) = b.result(node), b.shape(node.tensors[0])
    if node.op == "channel_shuffle":
        groups = node.attributes["groups"]
        split, order = [n, groups, c // groups, h, w], [0, 2, 1, 3, 4]
    else:
        r = node.attributes["downscale_factor"]
        split, order = [n, c, h // r, r, w // r, r], [0, 1, 3, 5, 2, 4]
    parts = b.emit("Reshape", [b.operand(node, 0), b.constant(out, split)], b.spare(out))
    moved = b.emit("Transpose", [parts], b.spare(out), perm=order)
    b.emit("Reshape", [moved, b.constant(out, list(b.shape(node.outputs[0])))], out)


@translates("grid_sampler")
def _grid_sample(b: OnnxBuilder, node: Node) -> None:
    modes = {0: "linear", 1: "nearest", 2: "cubic"}
    paddings = {0: "zeros", 1: "border", 2: "reflection"}
    b.emit(
        "GridSample",
        [b.operand(node, 0), b.operand(node, 1)],
        b.result(node),
        mode=modes[node.attributes["interpolation_mode"]],
        padding_mode=paddings[node.attributes["padding_mode"]],
        align_corners=int(bool(node.attributes["align_corners"])),
    )
