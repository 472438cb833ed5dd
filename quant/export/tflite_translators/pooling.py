"""Pools and reductions in TensorFlow Lite; its pools keep scale and zero point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitwright.quant.export.tflite_builder import Step, TfliteBuilder
from bitwright.quant.export.tflite_layout import Layout, arranged_axis
from bitwright.quant.export.tflite_translators.registry import spread, translates, unsupported
from bitwright.quant.export.tflite_translators.windows import Pads, is_same, padded

LAST = Layout.CHANNELS_LAST
_LOWEST = float(np.finfo(np.float32).min)


@translates("max_pool2d", "avg_pool2d")
def _pool(b: TfliteBuilder, step: Step) -> None:
    node, attributes = step.node, step.node.attributes
    kernel = spread(attributes["kernel_size"], 2)
    stride = spread(attributes["stride"] or kernel, 2)
    data, shape = b.shape(node.tensors[0]), b.shape(node.outputs[0])
    largest = node.op == "max_pool2d"
    if len(data) != 4 or (largest and spread(attributes["dilation"], 2) != [1, 1]):
        raise unsupported(node, "dilation, or without batch dimension")
    before = spread(attributes["padding"], 2)
    # With `ceil_mode` the last window may reach beyond the padding.
    reach = [(n - 1) * s + k for n, s, k in zip(shape[2:], stride, kernel, strict=True)]
    pads = [(p, max(p, r - size - p)) for p, r, size in zip(before, reach, data[2:], strict=True)]
    if not largest:
        _check_divisor(step, data[2:], kernel, stride, pads, before)
    _write(b, step, kernel, stride, pads)


def _check_divisor(
    step: Step, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pads: Pads, padding: Sequence[int]
) -> None:
    """SAME does not count what it pads with; behind a PAD everything counts."""
    attributes = step.node.attributes
    same = is_same(sizes, kernel, stride, [1, 1], pads)
    counts = bool(attributes["count_include_pad"])
    beyond = [after for _, after in pads] != list(padding)
    if attributes.get("divisor_override") or (any(map(any, pads)) and (beyond or counts == same)):
        raise unsupported(step.node, "that way of counting padded elements")


def _write(b: TfliteBuilder, step: Step, kernel: Sequence[int], stride: Sequence[int], pads: Pads) -> None:
    largest, grid = step.node.op == "max_pool2d", b.operand_grid(step)
    fill = None
    if largest:
        fill = _LOWEST if grid is None else (-128 - grid.zero_point) * grid.scale
    sizes = b.shape(step.node.tensors[0])[2:]
    x, padding = padded(b, step, b.operand(step, 0, LAST), sizes, kernel, stride, [1, 1], pads, fill)
    options = {"padding": padding, "strideH": stride[0], "strideW": stride[1]}
    options |= {"filterHeight": kernel[0], "filterWidth": kernel[1]}
    op = "MAX_POOL_2D" if largest else "AVERAGE_POOL_2D"
    b.emit(op, [x], b.result(step, LAST, grid=grid), "Pool2DOptions", **options)


@translates("adaptive_avg_pool2d")
def _adaptive(b: TfliteBuilder, step: Step) -> None:
    before, after = b.shape(step.node.tensors[0])[-2:], b.shape(step.node.outputs[0])[-2:]
    if any(old % new for old, new in zip(before, after, strict=True)):
        raise unsupported(step.node, "windows of unlike size")
    kernel = [old // new for old, new in zip(before, after, strict=True)]
    _write(b, step, kernel, kernel, [(0, 0), (0, 0)])


@translates("mean", "sum")
def _reduce(b: TfliteBuilder, step: Step) -> None:
    """A mean over height and width is taken with the channels last, any other one in PyTorch's order."""
    node, shape = step.node, b.shape(step.node.tensors[0])
    rank = len(shape)
    dims = node.attributes.get("dim")
    axes = sorted(d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank)))
    keep = bool(node.attributes.get("keepdim", False))
    layout = LAST if rank > 2 and axes == list(range(2, rank)) else Layout.PLAIN
    places = [arranged_axis(axis, rank, layout) for axis in axes]
    inputs = [b.operand(step, 0, layout), b.integers(places)]
    b.emit(node.op.upper(), inputs, b.result(step, layout if keep else Layout.PLAIN), "ReducerOptions", keepDims=keep)


@translates("amax", "amin")
def _extreme(b: TfliteBuilder, step: Step) -> None:
    node, rank = step.node, len(b.shape(step.node.tensors[0]))
    dims = node.attributes.get("dim")
    axes = sorted(d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank)))
    op = "REDUCE_MAX" if node.op == "amax" else "REDUCE_MIN"
    keep = bool(node.attributes.get("keepdim", False))
    output = b.result(step, grid=b.operand_grid(step))
    b.emit(op, [b.operand(step, 0), b.integers(axes)], output, "ReducerOptions", keepDims=keep)
