"""From accumulators to codes: what devices do with `sum * (s_x * s_w / s_y)`, each in its own rounding.

All take int64 accumulators (32 bits of them used), and return whole numbers before the zero point and the clamp.

    FLOAT32          round_half_even(float32(acc) * m)                                        ONNX Runtime (MLAS)
    DOUBLE_ROUNDING  doubling high multiply, rounded, then a rounding shift: two roundings    gemmlowp, TFLite's default
    SINGLE_ROUNDING  the 64-bit product shifted once, rounded half up                         TFLITE_SINGLE_ROUNDING
    POWER_OF_TWO     a rounding shift (half away from zero); m must be a power of two         DPUs, DSPs
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt

from bitwright.quant.integer.codes import Array, Float32

_INT32_MAX, _INT32_MIN = (1 << 31) - 1, -(1 << 31)


class Rounding(StrEnum):
    """How a device scales an accumulator."""

    FLOAT32 = "float32"
    DOUBLE_ROUNDING = "double_rounding"
    SINGLE_ROUNDING = "single_rounding"
    POWER_OF_TWO = "power_of_two"


def requantize(accumulators: Array, multiplier: npt.ArrayLike, rounding: Rounding) -> Array:
    """Scaled accumulators, whole numbers in int64.

    Args:
        accumulators: int64, each within 32 bits.
        multiplier: real, positive; broadcasts against the accumulators.
        rounding: the device's way.

    Raises:
        ValueError: a power of two is asked for and the multiplier is none.
    """
    if rounding is Rounding.FLOAT32:
        scaled = (accumulators.astype(Float32) * np.asarray(multiplier, Float32)).astype(Float32)
        # What lies beyond 32 bits is cut off before it is rounded, as MLAS does with the range of the codes.
        return np.rint(np.clip(scaled, _INT32_MIN, _INT32_MAX)).astype(np.int64)
    mantissa, shift = quantized_multiplier(multiplier)
    if rounding is Rounding.DOUBLE_ROUNDING:
        return _double_rounding(accumulators, mantissa, shift)
    if rounding is Rounding.SINGLE_ROUNDING:
        return _single_rounding(accumulators, mantissa, shift)
    if np.any(mantissa != 1 << 30):
        raise ValueError(f"multiplier {np.asarray(multiplier)} is no power of two")
    return rounding_shift(accumulators, 1 - shift)


def quantized_multiplier(multiplier: npt.ArrayLike) -> tuple[Array, Array]:
    """A real multiplier as `mantissa * 2^(shift - 31)`, mantissa in [2^30, 2^31) (TFLite, QuantizeMultiplier).

    Returns:
        Mantissa and shift, int64.
    """
    fraction, shift = np.frexp(np.asarray(multiplier, np.float64))
    scaled = fraction * 2.0**31
    mantissa = np.floor(scaled + 0.5).astype(np.int64)  # positive: half up is half away from zero
    carried = mantissa == 1 << 31
    mantissa, shift = np.where(carried, 1 << 30, mantissa), np.where(carried, shift + 1, shift).astype(np.int64)
    tiny = shift < -31
    return np.where(tiny, 0, mantissa), np.where(tiny, 0, shift)


def _double_rounding(accumulators: Array, mantissa: Array, shift: Array) -> Array:
    """As gemmlowp: `RoundingDivideByPOT(SaturatingRoundingDoublingHighMul(x << left, m), right)`."""
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    wrapped = (accumulators << left).astype(np.int32).astype(np.int64)  # a 32-bit register
    return rounding_shift(doubling_high_multiply(wrapped, mantissa), right)


def doubling_high_multiply(values: Array, mantissa: Array) -> Array:
    """`(2 * a * b + nudge) >> 32`, rounding half away from zero towards the next multiple (ARM's SQRDMULH differs)."""
    product = values * mantissa
    nudge = np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    total = product + nudge
    quotient = np.where(total >= 0, total >> 31, -((-total) >> 31))  # C's division truncates towards zero
    return np.minimum(quotient, _INT32_MAX)


def rounding_shift(values: Array, bits: Array | int) -> Array:
    """Divides by `2^bits`, to nearest, half away from zero (gemmlowp's RoundingDivideByPOT); negative bits multiply."""
    right, left = np.maximum(bits, 0), np.maximum(np.negative(bits), 0)
    values = values << left
    mask = (np.int64(1) << right) - 1
    threshold = (mask >> 1) + (values < 0)
    up: Array = (values & mask) > threshold
    return (values >> right) + up


def _single_rounding(accumulators: Array, mantissa: Array, shift: Array) -> Array:
    """One shift of the 64-bit product; half rounds up, for negative numbers, too."""
    total = 31 - shift
    result = (accumulators * mantissa + (np.int64(1) << (total - 1))) >> total
    clipped: Array = np.clip(result, _INT32_MIN, _INT32_MAX)
    return clipped
