"""Formats as their documents define them, in NumPy and `ml_dtypes`, without anything of ours.

OCP 8-bit Floating Point Specification 1.0; OCP Microscaling Formats 1.0, section 6.3; NVIDIA, "Introducing NVFP4".
All take float32 values `[rows, columns]` and return what the codes stand for, float32 of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]

# OCP Microscaling Formats 1.0, table 1: the exponent of the largest power of two that an element can say.
EMAX = {
    "float4_e2m1fn": 2,
    "float6_e2m3fn": 2,
    "float6_e3m2fn": 4,
    "float8_e4m3fn": 8,
    "float8_e5m2": 15,
}


def _dtype(name: str) -> Any:
    return getattr(ml_dtypes, name)


def _cast(values: Values, name: str) -> Values:
    """Clamped first, so that nothing becomes NaN or infinity, then rounded to nearest even."""
    largest = np.float32(float(ml_dtypes.finfo(_dtype(name)).max))
    cast: Values = np.clip(values, -largest, largest).astype(_dtype(name)).astype(np.float32)
    return cast


def scaled_float(name: str, scale: float) -> Callable[[Values], Values]:
    """A small float with one scale."""
    return lambda values: _cast(values / np.float32(scale), name) * np.float32(scale)


def integer(bits: int, scale: float) -> Callable[[Values], Values]:
    """A symmetric two's-complement integer with one scale."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return lambda values: np.clip(np.rint(values / np.float32(scale)), low, high) * np.float32(scale)


def integer_groups(bits: int, size: int) -> Callable[[Values], Values]:
    """A symmetric integer with one float32 scale for `size` neighbours: `max |x| / largest code`."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def values_of(values: Values) -> Values:
        groups = values.reshape(len(values), -1, size)
        scale = (np.abs(groups).max(-1, keepdims=True).astype(np.float64) / high).astype(np.float32)
        scale = np.where(scale == 0, np.float32(1), np.maximum(scale, np.finfo(np.float32).tiny))
        result: Values = (np.clip(np.rint(groups / scale), low, high) * scale).reshape(values.shape)
        return result

    return values_of


def microscaled(name: str, size: int = 32) -> Callable[[Values], Values]:
    """MXFP8, MXFP6, MXFP4 and MXINT8."""

    def values_of(values: Values) -> Values:
        blocks = values.reshape(len(values), -1, size)
        largest = np.abs(blocks).max(-1, keepdims=True)
        # floor(log2 x) from the exponent's bits; a subnormal float32 lies below everything that E8M0 can say.
        shared = (largest.view(np.uint32) >> 23).astype(np.int64) - 127
        scale = np.where(largest > 0, np.clip(shared - EMAX.get(name, 0), -127, 127), 0)
        if name == "int8":
            elements = np.clip(np.rint(np.ldexp(blocks.astype(np.float64), 6 - scale)), -128, 127)
            integers: Values = np.ldexp(elements, scale - 6).astype(np.float32).reshape(values.shape)
            return integers
        unit = np.ldexp(np.float32(1), scale).astype(np.float32)
        floats: Values = (_cast(blocks / unit, name) * unit).reshape(values.shape)
        return floats

    return values_of


def nvfp4(values: Values) -> Values:
    """E2M1 in blocks of 16 with an E4M3 scale each, and one float32 scale for all."""
    blocks = values.reshape(len(values), -1, 16)
    tensor_scale = np.float32(np.abs(values).max().astype(np.float64) / (448 * 6))
    wanted = (np.abs(blocks).max(-1, keepdims=True).astype(np.float64) / 6).astype(np.float32)
    smallest = np.float32(float(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).smallest_subnormal))
    scale = np.maximum(_cast(wanted / tensor_scale, "float8_e4m3fn"), smallest) * tensor_scale
    result: Values = (_cast(blocks / scale, "float4_e2m1fn") * scale).reshape(values.shape)
    return result
