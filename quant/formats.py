"""Number formats: which real values a code can stand for.

Torch-free: linting, planning and validation need formats without loading a tensor library.
The arithmetic on tensors is in `fake_quantize`.
"""

from __future__ import annotations

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

    `max_value` is the largest finite magnitude. Formats without infinity saturate there when a value is
    quantized (OCP 8-bit Floating Point Specification, section 5.2.2, saturating mode).
    """

    name: str
    bits: int
    exponent_bits: int
    mantissa_bits: int
    max_value: float
    has_infinity: bool

    @property
    def signed(self) -> bool:
        """Every float format has a sign bit."""
        return True


NumberFormat = IntFormat | FloatFormat

_INTEGERS = [
    IntFormat(name=f"{'' if signed else 'u'}int{bits}", bits=bits, signed=signed)
    for bits in (2, 3, 4, 5, 6, 7, 8, 16, 32)
    for signed in (True, False)
]
_FLOATS = [
    # OCP OFP8: E4M3 has no infinity (S.1111.111 is NaN), E5M2 follows IEEE 754.
    FloatFormat(name="float8_e4m3fn", bits=8, exponent_bits=4, mantissa_bits=3, max_value=448.0, has_infinity=False),
    FloatFormat(name="float8_e5m2", bits=8, exponent_bits=5, mantissa_bits=2, max_value=57344.0, has_infinity=True),
    FloatFormat(name="float16", bits=16, exponent_bits=5, mantissa_bits=10, max_value=65504.0, has_infinity=True),
    FloatFormat(
        name="bfloat16", bits=16, exponent_bits=8, mantissa_bits=7, max_value=3.3895313892515355e38, has_infinity=True
    ),
    FloatFormat(
        name="float32", bits=32, exponent_bits=8, mantissa_bits=23, max_value=3.4028234663852886e38, has_infinity=True
    ),
]

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
