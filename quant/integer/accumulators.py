"""How many bits a sum of products takes: in what was computed, and in the worst case over all inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitwright.quant.integer.codes import Array, Grid

WIDTHS = (16, 24, 32)


@dataclass(frozen=True, kw_only=True)
class Overflow:
    """Sums that an accumulator of some width cannot hold.

    Attributes:
        width: of the accumulator, in bits.
        count: how many sums.
        share: of all.
    """

    width: int
    count: int
    share: float


def overflows(accumulators: Array, widths: tuple[int, ...] = WIDTHS) -> tuple[Overflow, ...]:
    """Which final sums do not fit; partial sums may overflow on the way and come back, which wraps without harm."""
    return tuple(
        Overflow(width=width, count=count, share=count / max(1, accumulators.size))
        for width in widths
        for count in [int(((accumulators < -(1 << (width - 1))) | (accumulators >= 1 << (width - 1))).sum())]
    )


def wrapped(accumulators: Array, width: int) -> Array:
    """What a two's-complement register of `width` bits is left with; int64."""
    half = 1 << (width - 1)
    return ((accumulators + half) & ((1 << width) - 1)) - half


def worst_case(weights: Array, data: Grid, bias: Array | None = None) -> tuple[Array, Array]:
    """The smallest and largest sum of each output channel over all inputs that the codes can say.

    Args:
        weights: codes without their zero point, `[out, …]`.
        data: the grid of the inputs.
        bias: int32 codes `[out]`.

    Returns:
        int64 `[out]` twice.
    """
    rows = weights.reshape(len(weights), -1).astype(np.int64)
    low, high = data.low - data.zero_point, data.high - data.zero_point
    ends = np.stack([rows * low, rows * high])
    offset = np.zeros(len(rows), np.int64) if bias is None else bias.astype(np.int64)
    return ends.min(0).sum(1) + offset, ends.max(0).sum(1) + offset


def bits_needed(low: int, high: int) -> int:
    """The width of the smallest two's-complement register that holds both."""
    return 1 + max(max(high, 0).bit_length(), (-low - 1).bit_length() if low < 0 else 0)
