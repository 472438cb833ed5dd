"""Scale and zero point of one tensor, and how they follow from a range."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bitwright.quant.formats import FloatFormat
from bitwright.quant.scheme import QParamsSpec, ScaleKind

# The smallest normal float32: a scale below it would lose precision in the division that quantizes.
SMALLEST_SCALE = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class QParams:
    """The numbers that quantize one tensor.

    Attributes:
        spec: format, symmetry and granularity.
        scale: float32, `[]` per tensor or `[C]` per channel; > 0.
        zero_point: float32 holding whole numbers (so that the arithmetic needs no casts), shape of `scale`; 0 for
            float formats.
        axis: the channel axis, None per tensor.
    """

    spec: QParamsSpec
    scale: torch.Tensor
    zero_point: torch.Tensor
    axis: int | None = None

    @property
    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The smallest and largest real value without clipping."""
        fmt = self.spec.format
        if isinstance(fmt, FloatFormat):
            return -fmt.max_value * self.scale, fmt.max_value * self.scale
        low, high = self.spec.code_range
        return (low - self.zero_point) * self.scale, (high - self.zero_point) * self.scale


def choose_qparams(low: torch.Tensor, high: torch.Tensor, spec: QParamsSpec, *, axis: int | None = None) -> QParams:
    """Chooses scale and zero point so that `[low, high]` is representable.

    Zero is always representable exactly, so the range is widened to contain it (Jacob et al. 2018, eq. 3). For
    symmetric formats `s = max(|low|, |high|) / q_max`; an unsigned symmetric format keeps zero point 0 and serves
    non-negative data, with its whole code range. Else `s = (high - low) / (q_max - q_min)`, `z = q_min -
    round(low / s)`. A power-of-two scale is rounded up, so that nothing more is clipped.

    Args:
        low: float32 `[]` or `[C]`, the smallest value to represent.
        high: as `low`, the largest.
        spec: what is asked for.
        axis: the channel axis when the range is per channel.

    Raises:
        ValueError: the range is not finite or `low > high`.
    """
    low, high = low.to(torch.float32), high.to(torch.float32)
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise ValueError("the range contains NaN or infinity")
    if (low > high).any():
        raise ValueError("the range has low > high")
    # float64, because high - low can exceed float32's range; each scale is rounded to float32 once.
    low, high = low.clamp(max=0.0).double(), high.clamp(min=0.0).double()
    magnitude, zero = torch.maximum(-low, high), torch.zeros_like(low, dtype=torch.float32)
    if isinstance(spec.format, FloatFormat):
        return QParams(spec, _legal(magnitude / spec.format.max_value, spec), zero, axis)
    code_low, code_high = spec.code_range
    if spec.symmetric:
        return QParams(spec, _legal(magnitude / code_high, spec), zero, axis)
    scale = _legal((high - low) / (code_high - code_low), spec)
    zero_point = (code_low - (low / scale).round()).clamp(code_low, code_high)
    return QParams(spec, scale, zero_point.to(torch.float32), axis)


def _legal(scale: torch.Tensor, spec: QParamsSpec) -> torch.Tensor:
    """As float32: a dead tensor (all zero) gets scale 1, a denormal scale the smallest normal one."""
    scale = torch.where(scale == 0, torch.ones_like(scale), scale.to(torch.float32).clamp(min=SMALLEST_SCALE))
    scale = scale.to(torch.float32)
    return next_power_of_two(scale) if spec.scale_kind is ScaleKind.POWER_OF_TWO else scale


def next_power_of_two(values: torch.Tensor) -> torch.Tensor:
    """The smallest powers of two not below positive `values`; exact, unlike a rounded logarithm."""
    mantissa, exponent = torch.frexp(values)  # mantissa in [0.5, 1)
    return torch.ldexp(torch.ones_like(values), torch.where(mantissa == 0.5, exponent - 1, exponent))
