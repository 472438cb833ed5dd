"""Scale and zero point of one tensor, and how they follow from a range."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bitwright.quant.formats import FloatFormat, NumberFormat, get_float_format, is_unscaled_float
from bitwright.quant.scheme import QParamsSpec, ScaleKind

# The smallest normal float32: a scale below it would lose precision in the division that quantizes.
SMALLEST_SCALE = torch.finfo(torch.float32).tiny
_E4M3 = get_float_format("float8_e4m3fn")
SMALLEST_FLOAT8 = 2.0 ** (_E4M3.min_exponent - _E4M3.mantissa_bits)


@dataclass(frozen=True)
class QParams:
    """The numbers that quantize one tensor.

    Attributes:
        spec: format, symmetry and granularity.
        scale: float32, `[]` per tensor, `[C]` per channel, or the tensor's own shape with as many blocks as there are
            along `axis`; > 0.
        zero_point: float32 holding whole numbers (so that the arithmetic needs no casts), shape of `scale`; 0 for
            float formats.
        axis: the axis of channels, or that which is cut into blocks; None per tensor.
        tensor_scale: float32 `[]`, the second level below `scale_kind` `float8_e4m3`: each scale is a float8 times it.
    """

    spec: QParamsSpec
    scale: torch.Tensor
    zero_point: torch.Tensor
    axis: int | None = None
    tensor_scale: torch.Tensor | None = None

    @property
    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The smallest and largest real value without clipping."""
        fmt = self.spec.format
        if isinstance(fmt, FloatFormat):
            return -fmt.max_value * self.scale, fmt.max_value * self.scale
        low, high = self.spec.code_range
        return (low - self.zero_point) * self.scale, (high - self.zero_point) * self.scale


def choose_qparams(
    low: torch.Tensor,
    high: torch.Tensor,
    spec: QParamsSpec,
    *,
    axis: int | None = None,
    tensor_scale: torch.Tensor | None = None,
) -> QParams:
    """Chooses scale and zero point so that `[low, high]` is representable.

    Zero is always representable exactly, so the range is widened to contain it (Jacob et al. 2018, eq. 3). For
    symmetric formats `s = max(|low|, |high|) / q_max`; an unsigned symmetric format keeps zero point 0 and serves
    non-negative data, with its whole code range. Else `s = (high - low) / (q_max - q_min)`, `z = q_min -
    round(low / s)`. A power-of-two scale is rounded up, so that nothing more is clipped; those of MX and NVFP4 are
    chosen as their definitions say (`_microscale`, `_two_level`). The scale of float16 and wider floats is 1.

    Args:
        low: float32 `[]`, `[C]` or one for each block, the smallest value to represent.
        high: as `low`, the largest.
        spec: what is asked for.
        axis: the axis of channels or blocks.
        tensor_scale: the second level of a scale of kind `float8_e4m3`; by the largest value when not given.

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
    if spec.scale_kind is ScaleKind.E8M0:
        return QParams(spec, _microscale(magnitude, spec.format), zero, axis)
    if is_unscaled_float(spec.format):
        return QParams(spec, torch.ones_like(zero), zero, axis)
    largest = largest_code(spec)
    if spec.scale_kind is ScaleKind.FLOAT8_E4M3:
        tensor_scale = second_level(magnitude.amax(), spec) if tensor_scale is None else tensor_scale
        return QParams(spec, _two_level(magnitude / largest, tensor_scale), zero, axis, tensor_scale)
    if spec.symmetric:
        return QParams(spec, _legal(magnitude / largest, spec), zero, axis)
    code_low, code_high = spec.code_range
    scale = _legal((high - low) / (code_high - code_low), spec)
    zero_point = (code_low - (low / scale).round()).clamp(code_low, code_high)
    return QParams(spec, scale, zero_point.to(torch.float32), axis)


def largest_code(spec: QParamsSpec) -> float:
    """The largest magnitude that a code stands for, before its scale."""
    return spec.format.max_value if isinstance(spec.format, FloatFormat) else float(spec.code_range[1])


def cut_into_blocks(values: torch.Tensor, size: int, axis: int) -> torch.Tensor:
    """`[…, n, …]` as `[…, ceil(n / size), …, size]`; zeros, which every range contains, fill the last block up."""
    axis %= values.dim()
    missing = -values.shape[axis] % size
    if missing:
        padding = [0, 0] * (values.dim() - axis)
        padding[-1] = missing
        values = torch.nn.functional.pad(values, padding)
    shape = values.shape
    return values.reshape(*shape[:axis], -1, size, *shape[axis + 1 :]).movedim(axis + 1, -1)


def block_extremes(values: torch.Tensor, size: int, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest and largest value of each block: the shape of `values` with `ceil(n / size)` along `axis`."""
    low, high = torch.aminmax(cut_into_blocks(values, size, axis), dim=-1)
    return low, high


def _legal(scale: torch.Tensor, spec: QParamsSpec) -> torch.Tensor:
    """As float32: a dead tensor (all zero) gets scale 1, a denormal scale the smallest normal one."""
    scale = torch.where(scale == 0, torch.ones_like(scale), scale.to(torch.float32).clamp(min=SMALLEST_SCALE))
    scale = scale.to(torch.float32)
    return next_power_of_two(scale) if spec.scale_kind is ScaleKind.POWER_OF_TWO else scale


def _microscale(magnitude: torch.Tensor, fmt: NumberFormat) -> torch.Tensor:
    """The shared scale of a block: `2 ** (floor(log2(max |v|)) - emax)`, within what E8M0 can say.

    OCP Microscaling Formats Specification 1.0, section 6.3. Its integers have an implied scale of their own (MXINT8:
    2^-6), so that their largest magnitude lies just below 2; here it is part of the scale. A dead block gets 1.
    """
    largest_exponent, implied = (fmt.max_exponent, 0) if isinstance(fmt, FloatFormat) else (0, fmt.bits - 2)
    shared = torch.frexp(magnitude)[1] - 1 - largest_exponent
    exponent = shared.clamp(-127, 127) - implied
    return torch.where(magnitude == 0, 1.0, torch.ldexp(torch.ones_like(magnitude), exponent)).to(torch.float32)


def second_level(largest: torch.Tensor, spec: QParamsSpec) -> torch.Tensor:
    """The float32 scale of a whole tensor, so that the scale of the block with its largest value is float8's largest.

    NVIDIA, "Introducing NVFP4" (2025): `max |x| / (448 * 6)`, with the largest code of other formats. float32 `[]`.
    """
    scale = largest.double() / (_E4M3.max_value * largest_code(spec))
    return torch.where(scale == 0, 1.0, scale.clamp(min=SMALLEST_SCALE)).to(torch.float32)


def _two_level(scale: torch.Tensor, tensor_scale: torch.Tensor) -> torch.Tensor:
    """Each block's scale as a float8 times the tensor's; a block whose float8 would be 0 gets the smallest there is."""
    relative = (scale.to(torch.float32) / tensor_scale).clamp(max=_E4M3.max_value)
    codes = relative.to(torch.float8_e4m3fn).to(torch.float32)
    return torch.where(scale == 0, 1.0, codes.clamp(min=SMALLEST_FLOAT8)) * tensor_scale


def next_power_of_two(values: torch.Tensor) -> torch.Tensor:
    """The smallest powers of two not below positive `values`; exact, unlike a rounded logarithm."""
    mantissa, exponent = torch.frexp(values)  # mantissa in [0.5, 1)
    return torch.ldexp(torch.ones_like(values), torch.where(mantissa == 0.5, exponent - 1, exponent))
