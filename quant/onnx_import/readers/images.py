"""Resampling of images, from ONNX."""

from __future__ import annotations

from bitwright.quant.onnx_import.calls import Misfit, Reader, require
from bitwright.quant.onnx_import.readers.registry import reads

_LINEAR = {1: "upsample_linear1d", 2: "upsample_bilinear2d", 3: "upsample_trilinear3d"}


@reads("Resize", "Upsample")
def _resize(r: Reader) -> None:
    """By the sizes of the result; batch and channels have to stay."""
    x, out = r.input(0), r.node.output[0]
    rank = r.rank(x) - 2
    require(1 <= rank <= 3 and r.rank(out) == rank + 2, "an input that is no image")
    require(r.shape(x)[:2] == r.shape(out)[:2], "another number of channels")
    mode = r.text("mode", "nearest")
    how = r.text("coordinate_transformation_mode", "asymmetric" if r.values.opset < 11 else "half_pixel")
    sizes = r.shape(out)[2:]
    size: tuple[int | None, ...] | None = None if None in sizes else sizes
    if mode == "nearest":
        r.emit(_nearest(r, how, rank), [x], output_size=size, scale_factors=_factors(r))
        return
    require(how in ("align_corners", "half_pixel", "pytorch_half_pixel"), f"coordinates {how!r}")
    require(not r.integer("antialias", 0), "antialiasing")
    if mode == "linear":
        op = _LINEAR[rank]
    elif mode == "cubic" and rank == 2:
        op = "upsample_bicubic2d"
    else:
        raise Misfit(f"mode {mode!r}")
    r.emit(op, [x], output_size=size, align_corners=how == "align_corners", scale_factors=_factors(r))


def _factors(r: Reader) -> tuple[float, ...] | None:
    """The factors where the result's size is open, as ATen takes either."""
    if None not in r.shape(r.node.output[0])[2:]:
        return None
    position = 1 if r.node.op_type == "Upsample" or r.values.opset < 11 else 2
    given = r.array(position)
    return None if given is None or not given.size else tuple(float(factor) for factor in given.reshape(-1)[2:])


def _nearest(r: Reader, how: str, rank: int) -> str:
    """Which of ATen's two: by the corner of a pixel, or by its middle; at whole factors they are the same."""
    rounding = r.text("nearest_mode", "floor" if r.values.opset < 11 else "round_prefer_floor")
    if how == "asymmetric" and rounding == "floor":
        return f"upsample_nearest{rank}d"
    before, after = r.shape(r.input(0))[2:], r.shape(r.node.output[0])[2:]
    pairs = list(zip(before, after, strict=True))
    if all(old and new and new % old == 0 for old, new in pairs) and rounding.startswith("round"):
        return f"upsample_nearest{rank}d"
    require(how in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round"), f"coordinates {how!r}")
    return f"_upsample_nearest_exact{rank}d"


@reads("GridSample")
def _grid_sample(r: Reader) -> None:
    modes = {"linear": 0, "bilinear": 0, "nearest": 1, "cubic": 2, "bicubic": 2}
    paddings = {"zeros": 0, "border": 1, "reflection": 2}
    mode, padding = r.text("mode", "bilinear"), r.text("padding_mode", "zeros")
    require(mode in modes and padding in paddings, f"mode {mode!r} with padding {padding!r}")
    r.emit(
        "grid_sampler", [r.input(0), r.input(1)], interpolation_mode=modes[mode], padding_mode=paddings[padding],
        align_corners=bool(r.integer("align_corners", 0)),
    )  # fmt: skip


@reads("RoiAlign")
def _roi_align(r: Reader) -> None:
    r.emit(
        "roi_align", [r.input(0), r.input(1), r.input(2)], spatial_scale=r.real("spatial_scale", 1.0),
        pooled_height=r.integer("output_height", 1), pooled_width=r.integer("output_width", 1),
        sampling_ratio=r.integer("sampling_ratio", 0),
        aligned=r.text("coordinate_transformation_mode", "half_pixel") == "half_pixel",
    )  # fmt: skip
