"""TensorFlow Lite's integer arithmetic, as its reference kernels have it: two roundings, tables, prescribed grids.

A result whose grid the format prescribes (a sigmoid's is [0, 1) in 256 steps) is brought to the plan's by QUANTIZE
behind it, as the exporter writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bitwright.quant.formats import FORMATS, IntFormat
from bitwright.quant.integer import elementwise, layers, pools
from bitwright.quant.integer.codes import Array, Float32, Grid
from bitwright.quant.integer.requantize import Rounding, requantize
from bitwright.quant.integer.rules import Arithmetic, Call
from bitwright.quant.integer.window import Window

_INT8 = FORMATS["int8"]
assert isinstance(_INT8, IntFormat)
UNIT = Grid(format=_INT8, scale=1 / 256, zero_point=-128)
SIGNED_UNIT = Grid(format=_INT8, scale=1 / 128)


def rescaled(codes: Array, grid: Grid, result: Grid) -> Array:
    """Codes of one grid as those of another, as the kernel of QUANTIZE does it; int64."""
    if grid.is_same(result):
        return codes
    ratio = np.float64(grid.scale) / np.float64(result.scale)
    return result.saturated(requantize(grid.centred(codes), ratio, Rounding.DOUBLE_ROUNDING) + result.zero_point)


def _in_one_sum(call: Call) -> Array | None:
    """FULLY_CONNECTED, whose reference kernel rounds once for a whole tensor, twice for each channel."""
    (data, data_grid), (weights, weight_grid) = call.operands
    if call.node.op != "linear":
        return None
    rounding = Rounding.DOUBLE_ROUNDING if weight_grid.scale.ndim else Rounding.SINGLE_ROUNDING
    return layers.matrix_product(data, weights.T, call.bias, (data_grid, weight_grid, call.result), rounding=rounding)


def _average(call: Call) -> Array | None:
    """AVERAGE_POOL_2D on the data's own grid."""
    ((data, grid),) = call.operands
    attributes, sizes = call.node.attributes, data.shape[2:]
    if data.ndim != 4 or any(_pair(attributes.get("padding", 0))) or attributes.get("ceil_mode"):
        return None
    if call.node.op == "avg_pool2d":
        kernel = _pair(attributes["kernel_size"])
        stride = _pair(attributes["stride"]) if attributes["stride"] else kernel
    else:
        wanted = _pair(attributes["output_size"])
        if any(size % n for size, n in zip(sizes, wanted, strict=True)):
            return None
        kernel = stride = (sizes[0] // wanted[0], sizes[1] // wanted[1])
    window = Window(kernel=kernel, stride=stride, padding=((0, 0), (0, 0)), dilation=(1, 1))
    pooled = pools.average_pool(data, window, (grid, grid), rounding=Rounding.DOUBLE_ROUNDING)
    return rescaled(pooled, grid, call.result)


def _pair(given: Any) -> tuple[int, int]:
    first, second = given if isinstance(given, list | tuple) and len(given) == 2 else (given, given)
    return (int(_single(first)), int(_single(second)))


def _single(given: Any) -> int:
    return int(given[0] if isinstance(given, list | tuple) else given)


def _table(function: Callable[[Array], Array], prescribed: Grid | None) -> Callable[[Call], Array | None]:
    def rule(call: Call) -> Array | None:
        ((data, grid),) = call.operands
        result = prescribed or call.result
        codes = elementwise.look_up(data, elementwise.table_tflite(function, grid, result), grid)
        return rescaled(codes, result, call.result)

    return rule


def _sigmoid(values: Array) -> Array:
    """In float32 but for `exp`, of which the C library's is the nearest float32."""
    exponential = np.exp(-values.astype(np.float64)).astype(Float32)
    sigmoid: Array = Float32(1) / (Float32(1) + exponential)
    return sigmoid


def _tanh(values: Array) -> Array:
    """To the nearest float32; the C library's may differ in the last bit, which moves a code only at a tie."""
    rounded: Array = np.tanh(values.astype(np.float64)).astype(Float32)
    return rounded


def _relu(call: Call) -> Array | None:
    """RELU and RELU6 between two grids."""
    ((data, grid),) = call.operands
    high = np.inf if call.node.op == "relu" else 6.0
    if call.node.op == "hardtanh":
        low, high = float(call.node.attributes["min_val"]), float(call.node.attributes["max_val"])
        if low != 0.0:
            return None
    return rescaled(data, grid, call.result.within(0.0, high))


TFLITE = Arithmetic(
    rounding=Rounding.DOUBLE_ROUNDING,
    add=elementwise.add_tflite,
    multiply=partial(elementwise.multiply, rounding=Rounding.DOUBLE_ROUNDING),
    own={
        "linear": _in_one_sum,
        "avg_pool2d": _average,
        "adaptive_avg_pool2d": _average,
        "sigmoid": _table(_sigmoid, UNIT),
        "tanh": _table(_tanh, SIGNED_UNIT),
        "relu": _relu,
        "hardtanh": _relu,
        "relu6": _relu,
    },
)
