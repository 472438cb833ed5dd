"""Signal to quantization noise ratio, the field's measure of how far two tensors lie apart."""

from __future__ import annotations

import math

# Float32 itself carries about 150 dB; equal tensors are reported as this rather than as infinity, which JSON lacks.
EXACT_DB = 200.0


def sqnr_db(signal: float, noise: float) -> float:
    """`10 log10(signal / noise)` in dB, at most `EXACT_DB`; 0 where there is noise and no signal.

    Args:
        signal: Σ reference².
        noise: Σ (reference − approximation)².
    """
    if noise <= 0.0:
        return EXACT_DB
    return min(EXACT_DB, 10.0 * math.log10(signal / noise)) if signal > 0.0 else 0.0
