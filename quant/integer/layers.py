"""Convolutions and matrix products in integers: int32 accumulators, then one rounding to codes."""

from __future__ import annotations

import math

import numpy as np

from bitwright.quant.integer.codes import Array, Float32, Grid
from bitwright.quant.integer.requantize import Rounding, requantize
from bitwright.quant.integer.window import Window


def multiplier(data: Grid, weights: Grid, result: Grid) -> Array:
    """`s_x * s_w / s_y` in float32, in the order in which runtimes compute it; `[]` or `[out]`."""
    scale: Array = ((data.scale * weights.scale).astype(Float32) / result.scale).astype(Float32)
    return scale


def _exact_multiplier(data: Grid, weights: Grid, result: Grid) -> Array:
    """The same in float64: 31 bits of a whole multiplier ask for more than float32 has."""
    scale: Array = data.scale.astype(np.float64) * weights.scale / result.scale
    return scale


def convolution_sums(data: Array, weights: Array, window: Window, groups: int) -> Array:
    """int64 sums of products.

    Args:
        data: centred codes `[batch, in, …]`; padding is 0, which is the zero point's value.
        weights: centred codes `[out, in / groups, …]`.
        window: as it moves.
        groups: of channels.
    """
    padded = np.pad(data, window.pads)
    sizes = window.results(padded.shape[2:])
    batch, outputs = len(data), len(weights) // groups
    sums = np.zeros((batch, groups, outputs, math.prod(sizes)))
    grouped = weights.reshape(groups, outputs, *weights.shape[1:]).astype(np.float64)
    for tap, index in window.taps(padded.shape[2:]):
        seen = padded[index].reshape(batch, groups, -1, math.prod(sizes)).astype(np.float64)
        at_tap: Array = grouped[(..., *tap)]  # type: ignore[arg-type]  # NumPy's types know no index of that kind
        sums += at_tap @ seen
    return sums.reshape(batch, len(weights), *sizes).astype(np.int64)


def convolution(
    data: Array,
    weights: Array,
    bias: Array | None,
    grids: tuple[Grid, Grid, Grid],
    window: Window,
    *,
    groups: int = 1,
    rounding: Rounding = Rounding.FLOAT32,
) -> Array:
    """A convolution from codes to codes.

    Args:
        data: codes `[batch, in, …]`.
        weights: codes `[out, in / groups, …]`.
        bias: int32 codes `[out]`, with scale `s_x * s_w`.
        grids: of the data, the weights and the result.
        window: as it moves.
        groups: of channels.
        rounding: the device's.

    Returns:
        int64 codes of the result's grid.
    """
    sums = convolution_sums(grids[0].centred(data), grids[1].centred(weights), window, groups)
    spatial = (1,) * (sums.ndim - 2)
    if bias is not None:
        sums = sums + bias.astype(np.int64).reshape(-1, *spatial)
    return _codes(sums, grids, rounding, spatial)


def matrix_product(
    left: Array,
    right: Array,
    bias: Array | None,
    grids: tuple[Grid, Grid, Grid],
    *,
    rounding: Rounding = Rounding.FLOAT32,
) -> Array:
    """`left @ right + bias` from codes to codes; scales of the right operand may differ by column.

    Args:
        left: codes `[…, rows, inner]`.
        right: codes `[…, inner, columns]`.
        bias: int32 codes `[columns]`, with scale `s_left * s_right`.
        grids: of the left and right operand and the result.
        rounding: the device's.
    """
    sums = _products(grids[0].centred(left), grids[1].centred(right))
    return _codes(sums if bias is None else sums + bias.astype(np.int64), grids, rounding)


def _products(left: Array, right: Array) -> Array:
    """Exact: float64 holds whole numbers of up to 53 bits, and has matrix products of its own."""
    sums: Array = left.astype(np.float64) @ right.astype(np.float64)
    return sums.astype(np.int64)


def _codes(sums: Array, grids: tuple[Grid, Grid, Grid], rounding: Rounding, behind: tuple[int, ...] = ()) -> Array:
    """Sums as codes; `behind` are the axes that stand behind that of the channels, each as 1."""
    scale = multiplier(*grids) if rounding is Rounding.FLOAT32 else _exact_multiplier(*grids)
    per_channel = scale.reshape(-1, *behind) if scale.ndim else scale
    return grids[2].saturated(requantize(sums, per_channel, rounding) + grids[2].zero_point)
