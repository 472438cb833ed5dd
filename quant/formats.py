"""Number formats: which real values a code can stand for.

Torch-free: linting, planning and validation need formats without loading a tensor library.
The arithmetic on tensors is in `fake_quantize`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class IntFormat:
    """A two's-complement or unsigned integer of `bits` bits; the value of code q is `(q - zero_point) * scale`."""

    name: str
    bits: int
    signed: bool

    @property
    def code_min(self) -> int:
        """The smallest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def code_max(self) -> int:
        """The largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


@dataclass(frozen=True, kw_only=True)
class FloatFormat:
    """A binary floating-point format; the value of code q is `q * scale`.

    `max_value` is the largest finite magnitude. Values beyond it saturate when they are quantized, infinities too
    (OCP 8-bit Floating Point Specification, section 5.2.2, saturating mode).

    Attributes:
        name: as ONNX and `ml_dtypes` call it.
        bits: of a code; 19 for tf32, whose codes are kept in 32.
        exponent_bits: of them.
        mantissa_bits: of them, without the hidden one.
        bias: of the exponent; the smallest normal number is `2 ** (1 - bias)`.
        max_value: the largest finite magnitude.
        has_infinity: whether codes stand for infinity.
        has_nan: whether a code stands for NaN.
    """

    name: str
    bits: int
    exponent_bits: int
    mantissa_bits: int
    bias: int
    max_value: float
    has_infinity: bool
    has_nan: bool = True

    @property
    def signed(self) -> bool:
        """Every float format has a sign bit."""
        return True

    @property
    def min_exponent(self) -> int:
        """The exponent of the smallest normal number; subnormal ones share it."""
        return 1 - self.bias

    @property
    def max_exponent(self) -> int:
        """The exponent of the largest number (`emax` of the OCP Microscaling Formats Specification, table 1)."""
        return math.frexp(self.max_value)[1] - 1


NumberFormat = IntFormat | FloatFormat

_INTEGERS = [
    IntFormat(name=f"{'' if signed else 'u'}int{bits}", bits=bits, signed=signed)
    for bits in (*range(2, 17), 32)
    for signed in (True, False)
]


def _small(name: str, exponent_bits: int, mantissa_bits: int, max_value: float) -> FloatFormat:
    """Elements of blocks that share a scale (OCP Microscaling Formats 1.0, tables 2 to 4): no infinity, no NaN."""
    return FloatFormat(
        name=name,
        bits=1 + exponent_bits + mantissa_bits,
        exponent_bits=exponent_bits,
        mantissa_bits=mantissa_bits,
        bias=(1 << (exponent_bits - 1)) - 1,
        max_value=max_value,
        has_infinity=False,
        has_nan=False,
    )


def _eight(name: str, exponent_bits: int, bias: int, max_value: float, *, has_infinity: bool = False) -> FloatFormat:
    return FloatFormat(
        name=name,
        bits=8,
        exponent_bits=exponent_bits,
        mantissa_bits=7 - exponent_bits,
        bias=bias,
        max_value=max_value,
        has_infinity=has_infinity,
    )


def _wide(name: str, bits: int, exponent_bits: int, max_value: float) -> FloatFormat:
    """IEEE 754 binary formats and their shortened kin."""
    return FloatFormat(
        name=name,
        bits=bits,
        exponent_bits=exponent_bits,
        mantissa_bits=bits - 1 - exponent_bits,
        bias=(1 << (exponent_bits - 1)) - 1,
        max_value=max_value,
        has_infinity=True,
    )


_FLOATS = [
    _small("float4_e2m1fn", 2, 1, 6.0),
    _small("float6_e2m3fn", 2, 3, 7.5),
    _small("float6_e3m2fn", 3, 2, 28.0),
    # OCP OFP8: E4M3 has no infinity (S.1111.111 is NaN), E5M2 follows IEEE 754. The `fnuz` kin (Graphcore, AMD,
    # Qualcomm: Noune et al. 2022) have one more in the bias, no negative zero and its code for NaN.
    _eight("float8_e4m3fn", 4, 7, 448.0),
    _eight("float8_e4m3fnuz", 4, 8, 240.0),
    _eight("float8_e5m2", 5, 15, 57344.0, has_infinity=True),
    _eight("float8_e5m2fnuz", 5, 16, 57344.0),
    _wide("float16", 16, 5, 65504.0),
    _wide("bfloat16", 16, 8, 3.3895313892515355e38),
    _wide("tf32", 19, 8, 3.4011621342146535e38),
    _wide("float32", 32, 8, 3.4028234663852886e38),
]

_WIDE_ENOUGH = 16
_ALL: tuple[NumberFormat, ...] = (*_INTEGERS, *_FLOATS)
FORMATS: dict[str, NumberFormat] = {fmt.name: fmt for fmt in _ALL}


def get_format(name: str) -> NumberFormat:
    """Returns the format called `name`.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in FORMATS:
        raise ValueError(f"unknown number format {name!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[name]


def get_float_format(name: str) -> FloatFormat:
    """Returns the floating-point format called `name`.

    Raises:
        ValueError: there is none of floating point.
    """
    fmt = get_format(name)
    if not isinstance(fmt, FloatFormat):
        raise ValueError(f"number format {name!r} has no floating point")
    return fmt


def is_unscaled_float(fmt: NumberFormat) -> bool:
    """Whether a format's own exponent reaches everything that networks compute, so that its scale is 1."""
    return isinstance(fmt, FloatFormat) and fmt.bits >= _WIDE_ENOUGH


def is_scaled_float(fmt: NumberFormat) -> bool:
    """Whether values are divided by a scale before they become floats of so few bits."""
    return isinstance(fmt, FloatFormat) and fmt.bits < _WIDE_ENOUGH
