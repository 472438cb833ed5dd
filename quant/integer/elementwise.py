"""Additions, multiplications, concatenations and look-up tables on codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from bitwright.quant.integer.codes import Array, Float32, Grid, quantized
from bitwright.quant.integer.layers import multiplier
from bitwright.quant.integer.requantize import Rounding, requantize

Grids = tuple[Grid, Grid, Grid]  # of the two operands and of the result

_TFLITE_BITS = 20  # headroom for the fraction of the scaled operands (TFLite, add.cc, 8-bit)


def add_mlas(left: Array, right: Array, grids: Grids) -> Array:
    """`left + right` as ONNX Runtime's QLinearAdd: float32 fused multiply-adds around one constant; int64 codes."""
    first, second, result = grids
    ratios = [(grid.scale / result.scale).astype(Float32) for grid in (first, second)]
    zeros = [Float32(grid.zero_point) for grid in (first, second)]
    constant = Float32(result.zero_point) - _fused(ratios[0], zeros[0], (ratios[1] * zeros[1]).astype(Float32))
    inner = _fused(right.astype(Float32), ratios[1], constant)
    return result.saturated(np.rint(_fused(left.astype(Float32), ratios[0], inner)))


def _fused(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> Array:
    """`a * b + c` in float32, rounded once: the product of two float32 is exact in float64."""
    return (np.asarray(a, np.float64) * np.asarray(b, np.float64) + np.asarray(c, np.float64)).astype(Float32)


def add_tflite(left: Array, right: Array, grids: Grids, rounding: Rounding = Rounding.DOUBLE_ROUNDING) -> Array:
    """`left + right` as TFLite's reference kernel; int64 codes.

    Both operands are shifted left by 20 bits, brought to twice the larger scale, added, and brought to the result's.
    """
    first, second, result = grids
    twice = 2 * max(float(first.scale), float(second.scale))
    total = np.zeros((), np.int64)
    for codes, grid in ((left, first), (right, second)):
        total = total + requantize(grid.centred(codes) << _TFLITE_BITS, np.float64(grid.scale) / twice, rounding)
    scale = twice / ((1 << _TFLITE_BITS) * np.float64(result.scale))
    return result.saturated(requantize(total, scale, rounding) + result.zero_point)


def multiply_mlas(left: Array, right: Array, grids: Grids) -> Array:
    """`left * right` as ONNX Runtime's QLinearMul, which adds the zero point before it rounds; int64 codes."""
    result = grids[2]
    scaled = (_products(left, right, grids).astype(Float32) * multiplier(*grids)).astype(Float32)
    return result.saturated(np.rint((scaled + Float32(result.zero_point)).astype(Float32)))


def multiply(left: Array, right: Array, grids: Grids, rounding: Rounding) -> Array:
    """`left * right`, scaled once: TFLite's reference with double rounding, XNNPACK with float32; int64 codes."""
    scaled = requantize(_products(left, right, grids), multiplier(*grids), rounding)
    return grids[2].saturated(scaled + grids[2].zero_point)


def _products(left: Array, right: Array, grids: Grids) -> Array:
    return grids[0].centred(left) * grids[1].centred(right)


def concatenate(parts: Sequence[tuple[Array, Grid]], axis: int, result: Grid) -> Array:
    """Parts with grids of their own, brought to one; a part that has the result's grid is copied."""
    return np.concatenate([rescale(codes, grid, result) for codes, grid in parts], axis)


def rescale(codes: Array, grid: Grid, result: Grid) -> Array:
    """Codes of one grid as those of another: dequantized and quantized again; int64."""
    if grid.is_same(result):
        return codes.astype(np.int64)
    return quantized(grid.real(codes), result)


def table(function: Callable[[Array], Array], grid: Grid, result: Grid) -> Array:
    """The results of a function of one number for every code, in the order of the codes; int64.

    The function is evaluated in float64 on the float32 values, so that the table does not depend on a library's
    float32 approximation.
    """
    values = grid.real(np.arange(grid.format.code_min, grid.format.code_max + 1))
    return quantized(function(values.astype(np.float64)).astype(Float32), result)


def table_tflite(function: Callable[[Array], Array], grid: Grid, result: Grid) -> Array:
    """As `table`, as TFLite fills its tables: in float32, times the reciprocal of the scale, half away from zero."""
    values = function(grid.real(np.arange(grid.format.code_min, grid.format.code_max + 1))).astype(Float32)
    scaled = (values * (Float32(1) / result.scale).astype(Float32)).astype(np.float64)
    return result.saturated(np.trunc(scaled + np.copysign(0.5, scaled)) + result.zero_point)


def look_up(codes: Array, entries: Array, grid: Grid) -> Array:
    """What a table says for each code."""
    return entries[codes.astype(np.int64) - grid.format.code_min]
