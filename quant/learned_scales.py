"""Scales and zero points as functions of what an optimizer moves."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from bitwright.quant.qparams import largest_code, next_power_of_two
from bitwright.quant.scheme import QParamsSpec

# A scale that learns in its linear form stays above this share of its start.
_LEAST_SHARE = 1e-3


class LearnedScale(torch.autograd.Function):
    """`s = start * exp(r)`, or `s = start * (1 + r)`: exactly `start` before the first step.

    The gradient that reaches `r` is `rate * dL/ds * ds/dr`, with the whole of `dL/ds`. LSQ asks for
    `rate = g / start^2`, `g` being the paper's gradient scale: then a step of plain gradient descent moves the scale at
    its start by the same share as the paper's own step on `s` (`ds / s = -lr * g * dL/ds / s`), and Adam's steps, which
    do not depend on a gradient's size, become shares of `s` instead of absolute lengths. In the logarithm the scale is
    positive whatever the optimizer does, and its gradient fades as it shrinks (`ds/dr = s`), so that it cannot
    collapse by its own pull. In the linear form it is kept from falling below a thousandth of its start.

    A power-of-two scale is rounded up, its gradient passes through (Jain et al. 2020, Trained Quantization
    Thresholds, eq. 7: with `rate = 1`, `dL/d(log2 t) = ln 2 * dL/dr`).
    """

    @staticmethod
    def forward(
        ctx: Any, ratio: torch.Tensor, start: torch.Tensor, rate: float | torch.Tensor, linear: bool, power_of_two: bool
    ) -> torch.Tensor:
        """All tensors float32, of the shape of the scale; the ratio of a single scale may be [1]."""
        ctx.shape = ratio.shape
        ratio = ratio.reshape(start.shape)
        scale = start * ((1 + ratio).clamp(min=_LEAST_SHARE) if linear else ratio.exp())
        scale = next_power_of_two(scale) if power_of_two else scale
        slope = start if linear else scale
        ctx.save_for_backward(slope * rate)
        return scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See the class."""
        (slope,) = ctx.saved_tensors
        return (gradient * slope).reshape(ctx.shape), None, None, None, None


class LearnedZeroPoint(torch.autograd.Function):
    """`z = clamp(round(z_0 - b / s))`: the zero point of an offset `b` that learns, in units of the scale at its start.

    LSQ+ (Bhalgat et al. 2020, eq. 1) adds a real offset `beta` behind the grid; hardware has a whole zero point, so
    `beta = -z s` is rounded, and rounding and scale pass their gradients on:
    `dz/db = -start / s`, `dz/ds = -z / s` with the unrounded `z`; both 0 where the code range ends.
    """

    @staticmethod
    def forward(
        ctx: Any,
        shift: torch.Tensor,
        scale: torch.Tensor,
        start: torch.Tensor,
        first: torch.Tensor,
        rate: torch.Tensor,
        codes: tuple[int, int],
    ) -> torch.Tensor:
        """`shift` is `b / start`, `first` the zero point at the start, `rate` a factor of the gradient of `shift`."""
        ctx.shape = shift.shape
        exact = (first - shift.reshape(start.shape)) * (start / scale)
        inside = (exact > codes[0]) & (exact < codes[1])
        ctx.save_for_backward(inside * -(start / scale) * rate, inside * -exact / scale)
        return exact.round().clamp(*codes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See the class."""
        by_shift, by_scale = ctx.saved_tensors
        return (gradient * by_shift).reshape(ctx.shape), gradient * by_scale, None, None, None, None


def learned_scale(
    ratio: torch.Tensor,
    start: torch.Tensor,
    *,
    rate: float | torch.Tensor,
    linear: bool = False,
    power_of_two: bool = False,
) -> torch.Tensor:
    """See `LearnedScale`."""
    result: torch.Tensor = LearnedScale.apply(ratio, start, rate, linear, power_of_two)  # type: ignore[no-untyped-call]
    return result


def lsq_rate(spec: QParamsSpec, start: torch.Tensor, elements: int) -> torch.Tensor:
    """`g / start^2` with LSQ's gradient scale `g = 1 / sqrt(n * Q_P)` (section 2.2); the shape of `start`.

    Args:
        spec: of the tensor.
        start: its scale before training.
        elements: `n`, how many values one scale serves; for activations those of one sample.
    """
    gradient_scale: float = float(max(1, elements) * largest_code(spec)) ** -0.5
    return gradient_scale / start.square()


def learned_zero_point(
    shift: torch.Tensor,
    scale: torch.Tensor,
    start: torch.Tensor,
    first: torch.Tensor,
    rate: torch.Tensor,
    codes: tuple[int, int],
) -> torch.Tensor:
    """See `LearnedZeroPoint`."""
    result: torch.Tensor = LearnedZeroPoint.apply(  # type: ignore[no-untyped-call]
        shift, scale, start, first, rate, codes
    )
    return result
