"""The arithmetic of quantization on tensors: real values to codes and back.

Integers (ONNX QuantizeLinear): `q = clamp(round_half_even(x / s) + z, q_min, q_max)`, `x ≈ (q - z) * s`.
Floats: `q = cast(clamp(x / s, -max, max))` with round-to-nearest-even on real values, `x ≈ q * s`. The value is
divided by the scale, never multiplied by its reciprocal: the two differ at ties. Infinities saturate. NaN stays NaN
in float formats; as an integer code it is the zero point, but `fake_quantize` keeps it, so that a simulation shows it.
"""

from __future__ import annotations

import torch

from bitwright.quant.formats import FloatFormat, IntFormat
from bitwright.quant.qparams import QParams

_TORCH_DTYPES = {
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
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


def quantize(x: torch.Tensor, qparams: QParams) -> torch.Tensor:
    """Real values to codes.

    Args:
        x: float32, any shape.
        qparams: scale and zero point; per channel along `qparams.axis`.

    Returns:
        int32 codes of the same shape for integer formats; values on the float format's own grid, as that dtype,
        for float formats.
    """
    scale = broadcastable(qparams.scale, qparams.axis, x.dim())
    scaled = x / scale
    fmt = qparams.spec.format
    if isinstance(fmt, FloatFormat):
        return scaled.clamp(-fmt.max_value, fmt.max_value).to(_TORCH_DTYPES[fmt.name])
    zero_point = broadcastable(qparams.zero_point, qparams.axis, x.dim())
    low, high = qparams.spec.code_range
    if fmt.bits > _FLOAT32_DIGITS:
        scaled, zero_point = x.double() / scale, zero_point.double()
    codes = torch.where(scaled.isnan(), zero_point, scaled.round() + zero_point)
    return codes.clamp(low, high).to(torch.int32)


def dequantize(codes: torch.Tensor, qparams: QParams) -> torch.Tensor:
    """Codes to float32 values of the same shape."""
    scale = broadcastable(qparams.scale, qparams.axis, codes.dim())
    if isinstance(qparams.spec.format, IntFormat):
        codes = codes - broadcastable(qparams.zero_point, qparams.axis, codes.dim())
    return codes.to(torch.float32) * scale


def fake_quantize(x: torch.Tensor, qparams: QParams) -> torch.Tensor:
    """Quantizes and dequantizes: what a consumer of the quantized tensor sees. float32, shape of `x`."""
    spec = qparams.spec
    if isinstance(spec.format, FloatFormat) or spec.format.bits > _FLOAT32_DIGITS:
        return dequantize(quantize(x, qparams), qparams)
    low, high = spec.code_range
    # The fused kernels multiply by the reciprocal, which differs at ties; this is the division, without int32.
    scale = broadcastable(qparams.scale, qparams.axis, x.dim())
    zero_point = broadcastable(qparams.zero_point, qparams.axis, x.dim())
    return ((x / scale).round_().add_(zero_point).clamp_(low, high).sub_(zero_point)).mul_(scale)
