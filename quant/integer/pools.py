"""Pools on codes."""

from __future__ import annotations

import numpy as np

from bitwright.quant.integer.codes import Array, Float32, Grid
from bitwright.quant.integer.requantize import Rounding
from bitwright.quant.integer.window import Window


def max_pool(codes: Array, window: Window, grid: Grid) -> Array:
    """The largest code under each position of the window; padding never wins."""
    padded = np.pad(codes.astype(np.int64), window.pads, constant_values=grid.format.code_min)
    largest: Array = np.maximum.reduce([padded[index] for _, index in window.taps(padded.shape[2:])])
    return largest


def average_pool(
    codes: Array,
    window: Window,
    grids: tuple[Grid, Grid],
    *,
    count_padding: bool = False,
    rounding: Rounding = Rounding.FLOAT32,
) -> Array:
    """The mean under each position of the window; int64 codes.

    In float32 as ONNX Runtime: real values summed tap by tap, divided, the zero point added before rounding. In
    integers as TFLite: the sum of codes divided by their number, half away from zero; both grids must be the same.

    Args:
        codes: `[batch, channels, …]`.
        window: as it moves.
        grids: of the data and of the result.
        count_padding: whether padding counts as values of 0.
        rounding: the device's.

    Raises:
        ValueError: integer arithmetic is asked for between two grids.
    """
    data, result = grids
    inside = np.pad(np.ones(codes.shape, bool), window.pads, constant_values=count_padding)
    taps = [index for _, index in window.taps(inside.shape[2:])]
    count = np.add.reduce([inside[index].astype(np.int64) for index in taps])
    if rounding is not Rounding.FLOAT32:
        if not data.is_same(result):
            raise ValueError("an integer average pool keeps scale and zero point; rescale its result")
        padded = np.pad(codes.astype(np.int64), window.pads, constant_values=data.zero_point)
        total = np.add.reduce([np.where(inside[index], padded[index], 0) for index in taps])
        return result.saturated(_divided(total, count))
    total, padded = Float32(0), np.pad(data.real(codes), window.pads)
    for index in taps:
        total = (total + padded[index]).astype(Float32)
    mean = (total / count.astype(Float32)).astype(Float32)
    shifted = ((mean / result.scale).astype(Float32) + Float32(result.zero_point)).astype(Float32)
    return result.saturated(np.rint(shifted))


def _divided(total: Array, count: Array) -> Array:
    """To nearest, half away from zero, as TFLite: C's division truncates towards zero."""
    away = np.where(total > 0, total + count // 2, total - count // 2)
    quotient: Array = np.where(away >= 0, away // count, -(-away // count))
    return quotient


def global_average_pool(codes: Array, grids: tuple[Grid, Grid]) -> Array:
    """The mean over all positions: an integer sum, scaled once by `s_x / (n * s_y)`; ONNX Runtime (MLAS)."""
    data, result = grids
    axes = tuple(range(2, codes.ndim))
    count = np.prod(codes.shape[2:])
    sums = data.centred(codes).sum(axes, keepdims=True)
    scale = (data.scale / (Float32(count) * result.scale).astype(Float32)).astype(Float32)
    return result.saturated(np.rint((sums.astype(Float32) * scale).astype(Float32)) + result.zero_point)
