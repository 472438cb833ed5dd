"""The arithmetic of training in low precision: rounded forward, straight through backward, with learned steps.

With `v = x / s` and `c = clamp(round(v), low, high)` (codes without their zero point), the forward is `y = c * s`, bit
for bit that of `quant.fake_quantize`. Backward (Esser et al. 2020, Learned Step Size Quantization, eq. 3 and 5):

    dy/dx = 1      where low < v < high, else 0
    dy/ds = c - v  where low < v < high, else c

Formats of floating point round to their own grid in place of integers; the same two lines hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from bitwright.quant.fake_quantize import cast_to_format
from bitwright.quant.formats import FloatFormat
from bitwright.quant.qparams import QParams, next_power_of_two
from bitwright.quant.scheme import QParamsSpec

# Elements worked on at a time: 1 MiB of float32 stays in the cache over the five passes of one rounding, which is
# twice as fast as passing over a large activation five times.
_PIECE = 1 << 18


@dataclass(frozen=True)
class Grid:
    """Which multiples of the scale exist.

    Attributes:
        low: the smallest code without its zero point.
        high: the largest likewise.
        fmt: the floating-point format whose values are the grid; None for integers.
    """

    low: float
    high: float
    fmt: FloatFormat | None = None

    @classmethod
    def of(cls, qparams: QParams) -> Grid:
        """The grid of a tensor with one zero point, or with 0 in every channel.

        Raises:
            ValueError: channels with zero points of their own.
        """
        fmt = qparams.spec.format
        if isinstance(fmt, FloatFormat):
            return cls(-fmt.max_value, fmt.max_value, fmt)
        zero_point = float(qparams.zero_point.flatten()[0])
        if (qparams.zero_point != zero_point).any():
            raise ValueError("channels with zero points of their own cannot be trained; weights must be symmetric")
        low, high = qparams.spec.code_range
        return cls(low - zero_point, high - zero_point)

    def nearest_(self, scaled: torch.Tensor) -> torch.Tensor:
        """Rounds `x / s` in place; returns it."""
        if self.fmt is None:
            return scaled.round_().clamp_(self.low, self.high)
        return scaled.copy_(cast_to_format(scaled, self.fmt))

    def pass_inside(
        self, gradient: torch.Tensor, scaled: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The gradient where `low < scaled < high`, else 0: what a hardtanh lets through, in one pass."""
        result = gradient if out is None else out  # in place where it may be
        passed: torch.Tensor = torch.ops.aten.hardtanh_backward.grad_input(
            gradient, scaled, self.low, self.high, grad_input=result
        )
        return passed


def largest_code(spec: QParamsSpec) -> float:
    """`Q_P` of the paper: the largest positive code, or the largest value of a float format."""
    return spec.format.max_value if isinstance(spec.format, FloatFormat) else float(spec.code_range[1])


class LearnedScale(torch.autograd.Function):
    """`s = start * exp(log_ratio)`: positive whatever the optimizer does, and exactly `start` before the first step.

    The gradient that reaches `log_ratio` is `gradient_scale * dL/ds / s`. A step of plain gradient descent then
    changes `s` by the same share as the paper's own step on `s` (`ds / s = -lr * g * dL/ds / s`), and Adam's steps,
    which do not depend on a gradient's size, become shares of `s` instead of absolute lengths.

    A power-of-two scale is rounded up, its gradient passes through (Jain et al. 2020, Trained Quantization
    Thresholds).
    """

    @staticmethod
    def forward(
        ctx: Any, log_ratio: torch.Tensor, start: torch.Tensor, gradient_scale: float, power_of_two: bool
    ) -> torch.Tensor:
        """Both float32, `[]` or `[C]`."""
        scale = start * log_ratio.exp()
        scale = next_power_of_two(scale) if power_of_two else scale
        ctx.save_for_backward(scale)
        ctx.gradient_scale = gradient_scale
        return scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See the class."""
        (scale,) = ctx.saved_tensors
        return gradient * ctx.gradient_scale / scale, None, None, None


class RoundActivation(torch.autograd.Function):
    """Fake-quantizes a tensor by one scale.

    `x` itself is kept for the backward pass and rounded again there: behind a ReLU that costs no memory, since the
    ReLU keeps its result anyway, and behind a folded layer it stands for what the batch norm would have kept.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, grid: Grid) -> torch.Tensor:
        """`x`: float32, any shape; `scale`: float32 []; returns the shape of `x`."""
        x = _dense(x)
        result = torch.empty_like(x)
        for part, out in _pieces(x, result):
            grid.nearest_(torch.div(part, scale, out=out)).mul_(scale)
        ctx.grid = grid
        ctx.save_for_backward(x, scale)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See the module."""
        x, scale = ctx.saved_tensors
        grid: Grid = ctx.grid
        gradient = gradient.contiguous(memory_format=_layout(x))
        result = torch.empty_like(x)
        total = torch.zeros_like(scale)
        for part, above, passed in _pieces(x, gradient, result):
            scaled = part / scale
            grid.pass_inside(above, scaled, out=passed)
            if ctx.needs_input_grad[1]:
                within = scaled.clamp_(grid.low, grid.high)
                codes = grid.nearest_(within.clone())
                # c - v inside; clipped, c is the bound itself: two sums without cancellation.
                total += torch.dot(above, codes - within)
                total += torch.dot(above - passed, within)
        return result, total, None


class RoundWeight(torch.autograd.Function):
    """`multiplier * clamp(round(w / divisor), low, high)`: rounds and folds a weight in one go.

    With `divisor = multiplier = s` this is fake quantization; a folded batch norm makes them differ by its factor.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, divisor: torch.Tensor, multiplier: torch.Tensor, grid: Grid
    ) -> torch.Tensor:
        """All float32; `divisor` and `multiplier` broadcast against `weight`."""
        ctx.grid = grid
        ctx.save_for_backward(weight, divisor, multiplier)
        return grid.nearest_(weight / divisor).mul_(multiplier)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See the module; `d/d divisor = -v * multiplier / divisor` inside, `d/d multiplier = c`."""
        weight, divisor, multiplier = ctx.saved_tensors
        scaled = weight / divisor
        passed = ctx.grid.pass_inside(gradient * (multiplier / divisor), scaled)
        by_divisor = (passed * scaled).neg_().sum_to_size(divisor.shape)
        by_multiplier = ctx.grid.nearest_(scaled).mul_(gradient).sum_to_size(multiplier.shape)
        return passed, by_divisor, by_multiplier, None


class StraightThrough(torch.autograd.Function):
    """`exact` forward, the gradient of `value` backward."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
        """Both of one shape."""
        return exact

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Passes the gradient on."""
        return gradient, None


def learned_scale(
    log_ratio: torch.Tensor, start: torch.Tensor, *, gradient_scale: float, power_of_two: bool = False
) -> torch.Tensor:
    """See `LearnedScale`."""
    result: torch.Tensor = LearnedScale.apply(  # type: ignore[no-untyped-call]
        log_ratio, start, gradient_scale, power_of_two
    )
    return result


def round_activation(x: torch.Tensor, scale: torch.Tensor, grid: Grid) -> torch.Tensor:
    """See `RoundActivation`."""
    result: torch.Tensor = RoundActivation.apply(x, scale, grid)  # type: ignore[no-untyped-call]
    return result


def round_weight(weight: torch.Tensor, divisor: torch.Tensor, multiplier: torch.Tensor, grid: Grid) -> torch.Tensor:
    """See `RoundWeight`."""
    result: torch.Tensor = RoundWeight.apply(weight, divisor, multiplier, grid)  # type: ignore[no-untyped-call]
    return result


def straight_through(value: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """See `StraightThrough`."""
    result: torch.Tensor = StraightThrough.apply(value, exact)  # type: ignore[no-untyped-call]
    return result


def _layout(x: torch.Tensor) -> torch.memory_format:
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last


def _dense(x: torch.Tensor) -> torch.Tensor:
    """`x` itself where its elements lie side by side, in whichever order."""
    if x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    return x.contiguous()


def _pieces(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Flat views of tensors of one layout, piece by piece on a CPU and whole elsewhere."""
    count = tensors[0].numel()
    size = _PIECE if tensors[0].device.type == "cpu" else max(1, count)
    flat = [tensor.as_strided((count,), (1,)) for tensor in tensors]
    for start in range(0, count, size):
        yield tuple(each[start : start + size] for each in flat)
