"""The arithmetic of quantization on tensors: real values to codes and back.

Integers (ONNX QuantizeLinear): `q = clamp(round_half_even(x / s) + z, q_min, q_max)`, `x ≈ (q - z) * s`.
Floats: `q = cast(clamp(x / s, -max, max))` with round-to-nearest-even on real values, `x ≈ q * s`. The value is
divided by the scale, never multiplied by its reciprocal: the two differ at ties. Infinities saturate. NaN stays NaN
in float formats (formats without one are kept in a wider type, which shows it); as an integer code it is the zero
point, but `fake_quantize` keeps it, so that a simulation shows it.
"""

from __future__ import annotations

import torch

from bitwright.quant.formats import FloatFormat, IntFormat
from bitwright.quant.kept_activations import reads_numbers
from bitwright.quant.qparams import QParams

# Those that torch casts to; values of the others are kept as float32 on their grid.
_TORCH_DTYPES = {
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e4m3fnuz": torch.float8_e4m3fnuz,
    "float8_e5m2": torch.float8_e5m2,
    "float8_e5m2fnuz": torch.float8_e5m2fnuz,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}

# Whole numbers of up to so many bits are exact in float32.
_FLOAT32_DIGITS = 24


def broadcastable(values: torch.Tensor, axis: int | None, rank: int) -> torch.Tensor:
    """Reshapes per-channel values `[C]` so that they broadcast against a tensor of `rank` dimensions."""
    if axis is None:
        return values
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def aligned(values: torch.Tensor, qparams: QParams, x: torch.Tensor) -> torch.Tensor:
    """Reshapes or repeats values of the shape of `qparams.scale` so that they broadcast against `x`."""
    return spread(values, x, axis=qparams.axis, block_size=qparams.spec.block_size)


def spread(values: torch.Tensor, x: torch.Tensor, *, axis: int | None, block_size: int | None) -> torch.Tensor:
    """Values per tensor `[]`, per channel `[C]` or per block of `axis`, so that they broadcast against `x`."""
    if block_size is None or axis is None:
        return broadcastable(values, axis, x.dim())
    return values.repeat_interleave(block_size, axis).narrow(axis, 0, x.shape[axis])


def cast_to_format(x: torch.Tensor, fmt: FloatFormat) -> torch.Tensor:
    """float32 values to the nearest ones of a float format, ties to even; saturating, NaN stays NaN.

    As the format's own dtype where torch has one, else as float32.
    """
    clamped = x.clamp(-fmt.max_value, fmt.max_value)
    if fmt.name in _TORCH_DTYPES:
        return clamped.to(_TORCH_DTYPES[fmt.name])
    # |x| lies in [2^(e-1), 2^e): one unit in the last place is 2^(e - 1 - mantissa bits), below the smallest normal
    # number that of its exponent. Powers of two scale without rounding, so the only rounding is that of `round`.
    exponent = (torch.frexp(clamped)[1] - 1).clamp(min=fmt.min_exponent) - fmt.mantissa_bits
    step = torch.ldexp(torch.ones_like(clamped), exponent)
    return (clamped / step).round_().mul_(step)


def quantize(x: torch.Tensor, qparams: QParams) -> torch.Tensor:
    """Real values to codes.

    Args:
        x: float32, any shape.
        qparams: scale and zero point; per channel or block along `qparams.axis`.

    Returns:
        int32 codes of the same shape for integer formats; values on the float format's own grid for float formats,
        as `cast_to_format` gives them.
    """
    scale = aligned(qparams.scale, qparams, x)
    scaled = x / scale
    fmt = qparams.spec.format
    if isinstance(fmt, FloatFormat):
        return cast_to_format(scaled, fmt)
    zero_point = aligned(qparams.zero_point, qparams, x)
    low, high = qparams.spec.code_range
    if fmt.bits > _FLOAT32_DIGITS:
        scaled, zero_point = x.double() / scale, zero_point.double()
    codes = torch.where(scaled.isnan(), zero_point, scaled.round() + zero_point)
    return codes.clamp(low, high).to(torch.int32)


def dequantize(codes: torch.Tensor, qparams: QParams) -> torch.Tensor:
    """Codes to float32 values of the same shape."""
    scale = aligned(qparams.scale, qparams, codes)
    if isinstance(qparams.spec.format, IntFormat):
        codes = codes - aligned(qparams.zero_point, qparams, codes)
    return codes.to(torch.float32) * scale


def fake_quantize(x: torch.Tensor, qparams: QParams) -> torch.Tensor:
    """Quantizes and dequantizes: what a consumer of the quantized tensor sees. float32, shape of `x`."""
    spec = qparams.spec
    if isinstance(spec.format, FloatFormat) or spec.format.bits > _FLOAT32_DIGITS:
        return dequantize(quantize(x, qparams), qparams)
    low, high = spec.code_range
    # The fused kernels multiply by the reciprocal, which differs at ties; this is the division, without int32.
    scale, zero_point = aligned(qparams.scale, qparams, x), aligned(qparams.zero_point, qparams, x)
    if zero_point.dim() == 0 and reads_numbers(x):
        # Whole numbers of so few bits are exact, so the zero point may move the bounds instead of every value.
        shift = float(zero_point)
        return (x / scale).round_().clamp_(low - shift, high - shift).mul_(scale)
    return ((x / scale).round_().add_(zero_point).clamp_(low, high).sub_(zero_point)).mul_(scale)
