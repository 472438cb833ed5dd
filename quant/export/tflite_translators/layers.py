"""Layers with weights in TensorFlow Lite: convolutions, matrix products, normalization."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitwright.quant.export.tflite_builder import Step, TfliteBuilder
from bitwright.quant.export.tflite_file import Array, schema
from bitwright.quant.export.tflite_layout import Layout
from bitwright.quant.export.tflite_translators.registry import fused, shape_of, spread, translates, unsupported
from bitwright.quant.export.tflite_translators.windows import padded

LAST = Layout.CHANNELS_LAST


@translates("conv1d", "conv2d")
def _conv(b: TfliteBuilder, step: Step) -> None:
    """Channels last; a 1-d convolution is one over an image of height 1."""
    node, attributes = step.node, step.node.attributes
    rank = int(node.op[-2])
    data, weight = b.shape(node.tensors[0]), shape_of(b, node.inputs[1])
    if len(data) != rank + 2 or node.inputs[1] not in b.captured.value_refs:
        raise unsupported(node, "an input without batch dimension, or a computed weight")
    kernel, results = [1] * (2 - rank) + list(weight[2:]), weight[0]
    stride, dilation = ([1] * (2 - rank) + spread(attributes[name], rank) for name in ("stride", "dilation"))
    x = b.operand(step, 0, LAST)
    if rank == 1:
        x = _reshaped(b, step, x, (data[0], 1, data[2], data[1]))
    sizes = [1] * (2 - rank) + list(data[2:])
    x, padding = padded(
        b, step, x, sizes, kernel, stride, dilation, _pads(attributes["padding"], kernel, dilation, rank)
    )
    depthwise = attributes["groups"] == data[1] and attributes["groups"] > 1
    filters = b.weight(step, 1, _depthwise if depthwise else _channels_last, 3 if depthwise else 0)
    given = b.bias(step)
    inputs = [x, filters, given if given is not None else no_bias(b, step, results)]
    options = {"padding": padding, "strideH": stride[0], "strideW": stride[1], "dilationHFactor": dilation[0]}
    options |= {"dilationWFactor": dilation[1], "fusedActivationFunction": fused(step)}
    if depthwise:
        options["depthMultiplier"] = results // data[1]
    op, table = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
    if rank == 2:
        b.emit(op, inputs, b.result(step, LAST), table, **options)
        return
    length = b.shape(step.results[0])[2]
    row = b.inner(step, (data[0], 1, length, results))
    b.emit(op, inputs, row, table, **options)
    reshape(b, row, b.result(step, LAST), (data[0], length, results))


def _channels_last(weight: Array) -> Array:
    """`[out, in / groups, (height,) width]` as `[out, height, width, in / groups]`."""
    images = weight if weight.ndim == 4 else weight[:, :, None]
    return images.transpose(0, 2, 3, 1)


def _depthwise(weight: Array) -> Array:
    """`[out, 1, (height,) width]` as `[1, height, width, out]`."""
    images = weight if weight.ndim == 4 else weight[:, :, None]
    return images.transpose(1, 2, 3, 0)


def _pads(
    padding: str | int | Sequence[int], kernel: Sequence[int], dilation: Sequence[int], rank: int
) -> list[tuple[int, int]]:
    """Before and after, of height and width."""
    if padding == "same":  # torch puts the odd element behind
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [(each // 2, each - each // 2) for each in total]
    given = [0] if isinstance(padding, str) else padding
    return [(0, 0)] * (2 - rank) + [(each, each) for each in spread(given, rank)]


def no_bias(b: TfliteBuilder, step: Step, results: int) -> int:
    """The bias of a layer without one: Vela wants it said."""
    if not step.in_codes:
        return b.file.tensor(f"{step.node.name}/no_bias", (results,), data=np.zeros(results))
    data, weight, _ = b.graph.layer_positions(step.node)
    grid, ref = b.operand_grid(step, data), step.node.inputs[weight]
    assert grid is not None and ref is not None
    scale = np.broadcast_to(grid.scale * b.quantized.qparams[ref].scale.numpy(), (results,))
    return b.file.tensor(f"{step.node.name}/no_bias", (results,), "int32", data=np.zeros(results), scale=scale)


def reshape(b: TfliteBuilder, source: int, output: int, shape: Sequence[int]) -> int:
    """RESHAPE to a shape of the file."""
    return b.emit("RESHAPE", [source, b.integers(shape)], output, "ReshapeOptions", newShape=list(shape))


def _reshaped(b: TfliteBuilder, step: Step, source: int, shape: Sequence[int]) -> int:
    return reshape(b, source, b.inner(step, shape, b.operand_grid(step)), shape)


@translates("conv_transpose2d")
def _transposed(b: TfliteBuilder, step: Step) -> None:
    """TRANSPOSE_CONV without padding, and the edge that PyTorch's padding takes off cut off behind it."""
    node, attributes = step.node, step.node.attributes
    data, weight, shape = b.shape(node.tensors[0]), shape_of(b, node.inputs[1]), b.shape(node.outputs[0])
    stride, padding = spread(attributes["stride"], 2), spread(attributes["padding"], 2)
    if attributes["groups"] != 1 or spread(attributes["dilation"], 2) != [1, 1]:
        raise unsupported(node, "groups or dilation")
    full = [(size - 1) * s + k for size, s, k in zip(data[2:], stride, weight[2:], strict=True)]
    if any(p + size > whole for p, size, whole in zip(padding, shape[2:], full, strict=True)):
        raise unsupported(node, "an output_padding beyond what its kernel reaches")
    given = b.bias(step)
    filters = b.weight(step, 1, lambda w: w.transpose(1, 2, 3, 0), 0)
    bias = given if given is not None else no_bias(b, step, shape[1])
    sizes = (data[0], *full, shape[1])
    whole = list(shape[2:]) == full
    made = b.result(step, LAST) if whole else b.inner(step, sizes)
    inputs = [b.integers(sizes), filters, b.operand(step, 0, LAST), bias]
    options = {"strideH": stride[0], "strideW": stride[1], "padding": schema().Padding.VALID}
    b.emit("TRANSPOSE_CONV", inputs, made, "TransposeConvOptions", fusedActivationFunction=fused(step), **options)
    if not whole:
        begin, end = [0, *padding, 0], [data[0], *(p + n for p, n in zip(padding, shape[2:], strict=True)), shape[1]]
        cut(b, made, b.result(step, LAST), begin, end)


def cut(b: TfliteBuilder, source: int, output: int, begin: Sequence[int], end: Sequence[int], step: int = 1) -> int:
    """STRIDED_SLICE with the same step along all axes."""
    inputs = [source, b.integers(begin), b.integers(end), b.integers([step] * len(begin))]
    return b.emit("STRIDED_SLICE", inputs, output, "StridedSliceOptions")


@translates("linear")
def _linear(b: TfliteBuilder, step: Step) -> None:
    _fully_connected(b, step, 0, b.weight(step, 1, lambda weight: weight, 0))


@translates("addmm", "matmul", "mm", "bmm")
def _product(b: TfliteBuilder, step: Step) -> None:
    """With a constant matrix on the right FULLY_CONNECTED, which has a bias and a scale for each column."""
    node = step.node
    left, right, _ = b.graph.layer_positions(node)
    if node.op == "addmm" and (node.attributes["beta"], node.attributes["alpha"]) != (1, 1):
        raise unsupported(node, "beta or alpha other than 1")
    ref = node.inputs[max(left, right)]
    if ref is not None and b.graph.is_constant(ref) and len(b.shape(ref)) == 2:
        _fully_connected(b, step, left, b.weight(step, right, lambda weight: weight.T, 0))
        return
    if node.op == "addmm" or step.followers:
        raise unsupported(node, "a computed matrix, and something added or fused behind it")
    operands = [b.operand(step, 0), b.operand(step, 1)]
    b.emit("BATCH_MATMUL", operands, b.result(step), "BatchMatMulOptions", adjX=False, adjY=False)


def _fully_connected(b: TfliteBuilder, step: Step, position: int, weights: int) -> None:
    shape = b.shape(step.results[0])
    given = b.bias(step)
    inputs = [b.operand(step, position), weights, given if given is not None else no_bias(b, step, shape[-1])]
    options = {"keepNumDims": len(shape) != 2, "fusedActivationFunction": fused(step)}
    b.emit("FULLY_CONNECTED", inputs, b.result(step), "FullyConnectedOptions", **options)


@translates("embedding", in_codes=False)
def _embedding(b: TfliteBuilder, step: Step) -> None:
    inputs = [b.operand(step, 0), b.operand(step, 1)]
    b.emit("GATHER", inputs, b.result(step), "GatherOptions", axis=0, batchDims=0)


@translates("layer_norm", in_codes=False)
def _layer_norm(b: TfliteBuilder, step: Step) -> None:
    """`(x - mean) / sqrt(mean((x - mean)²) + eps) * weight + bias`, operator by operator."""
    node, x = step.node, b.operand(step, 0)
    shape = b.shape(node.tensors[0])
    dims = len(node.attributes["normalized_shape"])
    axes = b.integers(range(len(shape) - dims, len(shape)))
    narrow = (*shape[: len(shape) - dims], *[1] * dims)
    mean = b.emit("MEAN", [x, axes], b.inner(step, narrow), "ReducerOptions", keepDims=True)
    squares = b.emit("SQUARED_DIFFERENCE", [x, mean], b.inner(step, shape), "SquaredDifferenceOptions")
    variance = b.emit("MEAN", [squares, axes], b.inner(step, narrow), "ReducerOptions", keepDims=True)
    eps = b.number(float(node.attributes["eps"]), len(shape))
    root = b.emit("RSQRT", [b.emit("ADD", [variance, eps], b.inner(step, narrow), "AddOptions")], b.inner(step, narrow))
    centred = b.emit("SUB", [x, mean], b.inner(step, shape), "SubOptions")
    value = b.emit("MUL", [centred, root], b.inner(step, shape), "MulOptions")
    for op, position in (("MUL", 1), ("ADD", 2)):
        if position < len(node.inputs) and node.inputs[position] is not None:
            parameter = b.operand(step, position)
            value = b.emit(op, [value, parameter], b.inner(step, shape), f"{op.capitalize()}Options")
    reshape(b, value, b.result(step), shape)
