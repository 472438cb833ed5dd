"""Tensors as an integer accelerator holds them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.quant.formats import IntFormat

Array = npt.NDArray[Any]
Float32 = np.float32
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Which real values codes stand for: `(code - zero_point) * scale`.

    Attributes:
        format: of the codes.
        scale: float32 (anything that NumPy turns into it), `[]`, or one for each output channel of a weight.
        zero_point: one for all.
        narrow_range: leave out the most negative code.
        bounds: the smallest and largest code that a fused clamp leaves; None leaves all.
    """

    format: IntFormat
    scale: Any
    zero_point: int = 0
    narrow_range: bool = False
    bounds: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", np.asarray(self.scale, Float32))

    @property
    def low(self) -> int:
        """The smallest code in use."""
        if self.bounds is not None:
            return self.bounds[0]
        return self.format.code_min + (1 if self.narrow_range and self.format.signed else 0)

    @property
    def high(self) -> int:
        """The largest code in use."""
        if self.bounds is not None:
            return self.bounds[1]
        return self.format.code_max

    def within(self, low: float, high: float) -> Grid:
        """The same grid without the codes beyond two real values, which are rounded to codes themselves."""
        ends = quantized(np.array([max(low, -_LARGEST), min(high, _LARGEST)], Float32), self)
        return replace(self, bounds=(int(ends[0]), int(ends[1])))

    def is_same(self, other: Grid) -> bool:
        """Whether codes mean the same on both."""
        numbers = np.array_equal(self.scale, other.scale) and self.zero_point == other.zero_point
        return numbers and (self.format, self.low) == (other.format, other.low)

    def centred(self, codes: Array) -> Array:
        """Codes without their zero point, int64."""
        return codes.astype(np.int64) - self.zero_point

    def real(self, codes: Array) -> Array:
        """The values as a runtime's float32 arithmetic has them."""
        values: Array = (self.scale * self.centred(codes).astype(Float32)).astype(Float32)
        return values

    def saturated(self, values: Array) -> Array:
        """Whole numbers, zero point included, cut to the codes in use; int64."""
        return np.clip(values, self.low, self.high).astype(np.int64)


def quantized(values: Array, grid: Grid) -> Array:
    """Real values as codes: `clamp(round_half_even(x / s) + z)`, ONNX QuantizeLinear; int64."""
    with np.errstate(over="ignore"):
        return grid.saturated(np.rint((values.astype(Float32) / grid.scale).astype(Float32)) + grid.zero_point)
