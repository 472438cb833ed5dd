"""Operators that move, cut, join and resample in TensorFlow Lite: codes keep their grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bitwright.quant.export.tflite_builder import Step, TfliteBuilder
from bitwright.quant.export.tflite_file import schema
from bitwright.quant.export.tflite_layout import Grid, Layout, arranged, arranged_axis
from bitwright.quant.export.tflite_translators.layers import cut, reshape
from bitwright.quant.export.tflite_translators.registry import translates, unsupported
from bitwright.quant.export.tflite_translators.windows import pad

LAST = Layout.CHANNELS_LAST


@translates(
    "view", "reshape", "flatten", "unsqueeze", "squeeze", "_unsafe_view", "unflatten", "view_as", "dropout", "to"
)
def _reshape(b: TfliteBuilder, step: Step) -> None:
    if step.node.op == "to" and len({b.graph.tensors[ref].dtype for ref in (*step.node.tensors, *step.results)}) > 1:
        _cast(b, step)
        return
    output = b.result(step, grid=b.operand_grid(step))
    reshape(b, b.operand(step, 0), output, b.shape(step.results[0]))


def _cast(b: TfliteBuilder, step: Step) -> None:
    b.emit("CAST", [b.operand(step, 0)], b.result(step), "CastOptions")


@translates("permute", "transpose", "t")
def _transpose(b: TfliteBuilder, step: Step) -> None:
    node, rank = step.node, len(b.shape(step.node.tensors[0]))
    order = list(range(rank))
    if node.op == "permute":
        order = [axis % rank for axis in node.attributes["dims"]]
    else:
        first, second = node.attributes.get("dim0", 0) % rank, node.attributes.get("dim1", 1) % rank
        order[first], order[second] = order[second], order[first]
    output = b.result(step, grid=b.operand_grid(step))
    b.emit("TRANSPOSE", [b.operand(step, 0), b.integers(order)], output, "TransposeOptions")


@translates("cat", "concat")
def _cat(b: TfliteBuilder, step: Step) -> None:
    """Parts on another grid than the result's are brought to it first."""
    node, ref = step.node, step.results[0]
    rank, layout = len(b.shape(ref)), b.first_layout(step)
    parts = [i for i, part in enumerate(node.inputs) if part is not None and b.graph.tensors[part].elements]
    inputs = [_on_grid(b, step, position, layout) for position in parts]
    axis = arranged_axis(int(node.attributes.get("dim", 0)), rank, layout)
    b.emit("CONCATENATION", inputs, b.result(step, layout), "ConcatenationOptions", axis=axis)


def _on_grid(b: TfliteBuilder, step: Step, position: int, layout: Layout) -> int:
    value, own = b.operand(step, position, layout), b.operand_grid(step, position)
    if own is None or own == b.grid(step.results[0]):
        return value
    ref = step.node.inputs[position]
    assert ref is not None
    return b.emit("QUANTIZE", [value], b.inner(step, arranged(b.shape(ref), layout)), "QuantizeOptions")


@translates("stack")
def _stack(b: TfliteBuilder, step: Step) -> None:
    shape = list(b.shape(step.results[0]))
    axis = int(step.node.attributes.get("dim", 0)) % len(shape)
    part = [*shape[:axis], 1, *shape[axis + 1 :]]
    inputs = []
    for position in range(len(step.node.tensors)):
        value = _on_grid(b, step, position, Layout.PLAIN)
        inputs.append(reshape(b, value, b.inner(step, part), part))
    b.emit("CONCATENATION", inputs, b.result(step), "ConcatenationOptions", axis=axis)


@translates("split", "split_with_sizes", "chunk")
def _split(b: TfliteBuilder, step: Step) -> None:
    """One slice for each part."""
    layout, start = b.first_layout(step), 0
    shape = b.shape(step.node.tensors[0])
    axis = int(step.node.attributes.get("dim", 0)) % len(shape)
    for index, ref in enumerate(step.results):
        end = start + b.shape(ref)[axis]
        _cut(b, step, layout, axis, start, end, index=index)
        start = end


@translates("slice")
def _slice(b: TfliteBuilder, step: Step) -> None:
    attributes, shape = step.node.attributes, b.shape(step.node.tensors[0])
    axis = int(attributes.get("dim", 0)) % len(shape)
    bounds = slice(attributes.get("start"), attributes.get("end"), attributes.get("step", 1)).indices(shape[axis])
    _cut(b, step, b.first_layout(step), axis, *bounds)


def _cut(
    b: TfliteBuilder, step: Step, layout: Layout, axis: int, start: int, end: int, stride: int = 1, index: int = 0
) -> None:
    """STRIDED_SLICE along one axis of PyTorch's order."""
    sizes = arranged(b.shape(step.node.tensors[0]), layout)
    place = arranged_axis(axis, len(sizes), layout)
    begin, stop, strides = [0] * len(sizes), list(sizes), [1] * len(sizes)
    begin[place], stop[place], strides[place] = start, end, stride
    inputs = [b.operand(step, 0, layout), b.integers(begin), b.integers(stop), b.integers(strides)]
    b.emit("STRIDED_SLICE", inputs, b.result(step, layout, index, grid=b.operand_grid(step)), "StridedSliceOptions")


@translates("select", "unbind")
def _select(b: TfliteBuilder, step: Step) -> None:
    shape = b.shape(step.node.tensors[0])
    axis = int(step.node.attributes.get("dim", 0)) % len(shape)
    first = int(step.node.attributes.get("index", 0)) % shape[axis]
    grid = b.operand_grid(step)
    for index, ref in enumerate(step.results):
        begin, end = [0] * len(shape), list(shape)
        begin[axis], end[axis] = first + index, first + index + 1
        part = cut(b, b.operand(step, 0), b.inner(step, [*shape[:axis], 1, *shape[axis + 1 :]], grid), begin, end)
        reshape(b, part, b.result(step, index=index, grid=grid), b.shape(ref))


@translates("index_select")
def _index_select(b: TfliteBuilder, step: Step) -> None:
    inputs = [b.operand(step, 0), b.operand(step, 1)]
    output = b.result(step, grid=b.operand_grid(step))
    axis = int(step.node.attributes["dim"]) % len(b.shape(step.node.tensors[0]))
    b.emit("GATHER", inputs, output, "GatherOptions", axis=axis, batchDims=0)


@translates("expand")
def _expand(b: TfliteBuilder, step: Step) -> None:
    inputs = [b.operand(step, 0), b.integers(b.shape(step.results[0]))]
    b.emit("BROADCAST_TO", inputs, b.result(step, grid=b.operand_grid(step)), "BroadcastToOptions")


@translates("repeat")
def _repeat(b: TfliteBuilder, step: Step) -> None:
    times, shape = list(step.node.attributes["repeats"]), b.shape(step.node.tensors[0])
    if len(times) != len(shape):
        raise unsupported(step.node, "new axes")
    inputs = [b.operand(step, 0), b.integers(times)]
    b.emit("TILE", inputs, b.result(step, grid=b.operand_grid(step)), "TileOptions")


@translates("pixel_shuffle", "pixel_unshuffle", "channel_shuffle")
def _shuffle(b: TfliteBuilder, step: Step) -> None:
    """Reshapes around a transpose: DEPTH_TO_SPACE orders its channels otherwise than PyTorch."""
    node = step.node
    n, c, h, w = b.shape(node.tensors[0])
    if node.op == "channel_shuffle":
        groups = int(node.attributes["groups"])
        parts, order = [n, groups, c // groups, h * w], [0, 2, 1, 3]
    elif node.op == "pixel_shuffle":
        r = int(node.attributes["upscale_factor"])
        parts, order = [n, c // (r * r), r, r, h, w], [0, 1, 4, 2, 5, 3]
    else:
        r = int(node.attributes["downscale_factor"])
        parts, order = [n, c, h // r, r, w // r, r], [0, 1, 3, 5, 2, 4]
    grid = b.operand_grid(step)
    split = reshape(b, b.operand(step, 0), b.inner(step, parts, grid), parts)
    turned = b.inner(step, [parts[axis] for axis in order], grid)
    b.emit("TRANSPOSE", [split, b.integers(order)], turned, "TransposeOptions")
    reshape(b, turned, b.result(step, grid=grid), b.shape(step.results[0]))


@translates("upsample_nearest2d", "upsample_bilinear2d")
def _resize(b: TfliteBuilder, step: Step) -> None:
    node, size = step.node, list(b.shape(step.results[0])[2:])
    inputs, output = [b.operand(step, 0, LAST), b.integers(size)], b.result(step, LAST, grid=b.operand_grid(step))
    if "nearest" in node.op:
        options = {"alignCorners": False, "halfPixelCenters": False}
        b.emit("RESIZE_NEAREST_NEIGHBOR", inputs, output, "ResizeNearestNeighborOptions", **options)
        return
    aligned = bool(node.attributes["align_corners"])
    options = {"alignCorners": aligned, "halfPixelCenters": not aligned}
    b.emit("RESIZE_BILINEAR", inputs, output, "ResizeBilinearOptions", **options)


@translates("constant_pad_nd", "pad", "reflection_pad2d")
def _pad(b: TfliteBuilder, step: Step) -> None:
    attributes, shape = step.node.attributes, b.shape(step.node.tensors[0])
    given, rank = list(attributes.get("pad") or attributes.get("padding") or ()), len(shape)
    mode = "reflect" if step.node.op == "reflection_pad2d" else attributes.get("mode", "constant")
    if mode not in ("constant", "reflect") or min(given, default=0) < 0:
        raise unsupported(step.node, f"mode {mode!r} or a negative width")
    pads = [(0, 0)] * rank
    for i in range(len(given) // 2):
        pads[rank - 1 - i] = (given[2 * i], given[2 * i + 1])
    layout, grid = b.first_layout(step), b.operand_grid(step)
    places = [pads[_source_axis(axis, rank, layout)] for axis in range(rank)]
    output = b.result(step, layout, grid=grid)
    if mode == "reflect":
        amounts = b.integers([list(pair) for pair in places])
        reflect = schema().MirrorPadMode.REFLECT
        b.emit("MIRROR_PAD", [b.operand(step, 0, layout), amounts], output, "MirrorPadOptions", mode=reflect)
        return
    fill = float(attributes.get("value") or 0)
    pad(b, b.operand(step, 0, layout), output, places, _exact(step, fill, grid), grid)


def _exact(step: Step, fill: float, grid: Grid | None) -> float | None:
    """The number to pad with, None for zero."""
    if not math.isfinite(fill):
        raise unsupported(step.node, f"padding with {fill}")
    return fill or None


def _source_axis(place: int, rank: int, layout: Layout) -> int:
    """Which of PyTorch's axes stands at a place of the layout."""
    places: Sequence[int] = [arranged_axis(axis, rank, layout) for axis in range(rank)]
    return places.index(place)
