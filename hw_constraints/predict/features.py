"""What a kernel's time may hang on, as numbers: work, bytes, shapes, remainders, what is fused behind it.

One row of numbers for any kernel, so that a family's model takes what varies within the family and drops the rest.
Sizes enter as logarithms, because times are products of them; a remainder enters as log(padded / size): the share of
a vector, or of a block of vectors, that computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.kernels.axes import innermost_run, moves_one_axis, reduced, turns
from bitwright.hw_constraints.kernels.kernel import CONVOLUTIONS, WEIGHTED, Family, Kernel, Shape

Array = npt.NDArray[np.float64]
_LANES = (4, 16, 64)  # float32 in 128 and 512 bits; codes in 512 bits, or four blocks of float32
# Channels that an inner loop over channels takes one by one behind its vectors. ONNX Runtime's depthwise kernel for
# codes takes 19 us for 16 channels of 28 x 28, 62 for 15 and 43 for 33, but 23 for 32 (and 23 for 8).
_HALF = 8
_COLUMNS = (6, 16)  # positions of a row that a convolution's inner loop takes at once
_CHEAP = frozenset({"relu", "clip"})
_SUMMED = ("add", "requantize+add")
NAMES = (
    *("macs", "bytes read", "bytes written", "bytes of weights", "bytes of addends", "work for each byte"),
    *("positions", "width", "channels in", "channels out", "channels of a group", "kernel side", "long kernel side"),
    *("stride", "dilation", "is 1x1", "is 3x3", "is 5x5", "one position", "square"),
    *(f"channels in to {lanes}" for lanes in _LANES),
    *(f"channels out to {lanes}" for lanes in _LANES),
    *(f"width to {columns}" for columns in _COLUMNS),
    *("channels in are odd", "channels out are odd", "channels fill vectors", "channels behind vectors"),
    *("adds", "bounds", "fused function", "writes codes", "writes real values"),
    *("blocked", "channels last", "tensors in", "tensors out", "contiguous", "along"),
    *("rescales", "zero point", "broadcasts", "work on padding", "moves one axis", "repeats", "turns"),
)
_POSITION = {name: index for index, name in enumerate(NAMES)}


def features(kernels: Sequence[Kernel]) -> Array:
    """One row a kernel, one column for each of `NAMES`."""
    return np.asarray([_row(kernel) for kernel in kernels], np.float64).reshape(len(kernels), len(NAMES))


def _row(kernel: Kernel) -> list[float]:
    shape_in, shape_out = _picture(kernel.inputs[0]), _picture(kernel.outputs[0])
    channels_in, channels_out = shape_in[1], shape_out[1]
    if kernel.family in (Family.LINEAR, Family.MATMUL):
        channels_in = kernel.inputs[0][-1]
    sides = _sides(kernel)
    addends = sum(map(math.prod, kernel.inputs[1:]))
    positions, width = math.prod(shape_out[2:]), shape_out[3]
    return [
        *map(_log, (kernel.macs, kernel.input_bytes, kernel.output_bytes, kernel.weight_bytes, addends)),
        _log(kernel.macs) - _log(kernel.bytes),
        *map(_log, (positions, width, channels_in, channels_out, _group_channels(kernel, channels_in))),
        *map(_log, (min(sides), max(sides), _largest(kernel, "strides"), _largest(kernel, "dilations"))),
        *(float(set(sides) == {side}) for side in (1, 3, 5)),
        float(positions == 1),
        float(shape_out[2] == shape_out[3]),
        *(_padding(channels_in, lanes) for lanes in _LANES),
        *(_padding(channels_out, lanes) for lanes in _LANES),
        *(_padding(width, columns) for columns in _COLUMNS),
        float(channels_in % _LANES[0] != 0),
        float(channels_out % _LANES[0] != 0),
        float(channels_out % _LANES[1] == 0),
        _log(1 + channels_out % _HALF),
        *_epilogue(kernel),
        float(kernel.layout == "blocked"),
        float(kernel.layout == "channels_last"),
        *map(float, (len(kernel.inputs), len(kernel.outputs))),
        *map(_log, _moved(kernel)),
        *(float(kernel.attribute(name, 0) == 1) for name in ("rescale", "zero_point")),
        float(len(set(kernel.inputs)) > 1 or bool(kernel.weight and kernel.family not in WEIGHTED)),
        -math.log(share_inside(kernel)),
        float(moves_one_axis(kernel)),
        _log(innermost_run(kernel)),
        float(turns(kernel)),
    ]


def share_inside(kernel: Kernel) -> float:
    """The share of a convolution's multiplications that meet its input and not its padding; 1 for other kernels.

    Runtimes leave out most of the others: with dilation 12 on 10 x 10 positions only one tap of nine meets anything.
    """
    if kernel.family not in CONVOLUTIONS:
        return 1.0
    share, sides = 1.0, kernel.weight[2:]
    strides, dilations = (_along(kernel, name, len(sides)) for name in ("strides", "dilations"))
    pads = kernel.attribute("pads", 0)
    for axis, side in enumerate(sides):
        size, out = kernel.inputs[0][2 + axis], kernel.outputs[0][2 + axis]
        before = pads[axis] if isinstance(pads, tuple) else pads
        first = strides[axis] * np.arange(out)[:, None] - before
        places = first + dilations[axis] * np.arange(side)
        share *= float(np.mean((places >= 0) & (places < size)))
    return share or 1.0


def _along(kernel: Kernel, name: str, count: int) -> tuple[int, ...]:
    value = kernel.attribute(name, 1)
    return value if isinstance(value, tuple) and value else (int(value or 1),) * count


def _picture(shape: Shape) -> tuple[int, int, int, int]:
    """Any shape as [batch, channels, height, width]: of fewer dimensions the last one is the channels."""
    if len(shape) >= 4:
        return shape[0], shape[1], math.prod(shape[2:-1]), shape[-1]
    return 1, shape[-1] if shape else 1, 1, math.prod(shape[:-1])


def _sides(kernel: Kernel) -> tuple[int, ...]:
    sides = kernel.attribute("kernel_shape") or (kernel.weight[2:] if len(kernel.weight) > 2 else ())
    if kernel.family is Family.GLOBAL_POOL:
        sides = kernel.inputs[0][2:]
    return tuple(sides) or (1,)


def _group_channels(kernel: Kernel, channels_in: int) -> int:
    return channels_in // int(kernel.attribute("group", 1) or 1) if kernel.weight else channels_in


def _largest(kernel: Kernel, name: str) -> int:
    value = kernel.attribute(name, 1)
    return max(value, default=1) if isinstance(value, tuple) else int(value)


def _epilogue(kernel: Kernel) -> tuple[float, ...]:
    fused = set(kernel.epilogue)
    functions = fused - _CHEAP - {*_SUMMED, "quantize", "dequantize"}
    return (
        float(bool(fused & set(_SUMMED))),
        float(bool(fused & _CHEAP)),
        float(bool(functions)),
        float("quantize" in fused),
        float("dequantize" in fused),
    )


def _moved(kernel: Kernel) -> tuple[int, int]:
    """Elements that lie together, and those along the axis that an operator works on."""
    shape = kernel.inputs[0]
    order = kernel.attribute("perm")
    if order is not None and len(order) == len(shape):
        fixed = 0
        while fixed < len(shape) and order[-1 - fixed] == len(shape) - 1 - fixed:
            fixed += 1
        return math.prod(shape[len(shape) - fixed :]), shape[order[-1]]
    if kernel.op.startswith("Reduce"):
        return reduced(kernel)
    axis = kernel.attribute("axis")
    if axis is None or not shape:
        return 1, 1
    axis = int(axis) % len(shape)
    return math.prod(shape[axis + 1 :]), shape[axis]


def _log(value: float) -> float:
    return math.log(max(1.0, value))


def _padding(size: int, step: int) -> float:
    return math.log(-(-size // step) * step / size) if size > 0 else 0.0
