"""The arithmetic of training in low precision: rounded forward, straight through backward, with learned steps.

With `v = x / s` and `c = clamp(round(v), low, high)` (codes without their zero point), the forward is `y = c * s`, bit
for bit that of `quant.fake_quantize`. Backward (Esser et al. 2020, Learned Step Size Quantization, eq. 3 and 5):

    dy/dx = 1      where low < v < high, else 0
    dy/ds = c - v  where low < v < high, else c

Formats of floating point round to their own grid in place of integers; the same two lines hold. What other methods
than LSQ change is in `RoundActivation` and `learned_scales`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from bitwright.quant.fake_quantize import aligned, cast_to_format, fake_quantize
from bitwright.quant.formats import FloatFormat, IntFormat
from bitwright.quant.kept_activations import BatchNormResult, Inside, is_dense, is_kept_by_nobody, reads_numbers
from bitwright.quant.qparams import QParams

# Elements worked on at a time: three pieces of 256 KiB (what comes in, what goes out, and scratch) stay in a core's
# second-level cache over all passes of one rounding. Measured on 524,288 values, backward: 0.50 ms, against 0.90 ms in
# pieces of 16,384 (calls cost more than they do) and 2.3 ms in pieces of 262,144 with temporaries of their own.
_PIECE = 1 << 16


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

    def below(self, ceiling: float, scale: torch.Tensor) -> Grid:
        """The codes that values up to a ceiling have."""
        return replace(self, high=min(self.high, float((ceiling / scale).round())))

    def pass_inside(
        self, gradient: torch.Tensor, scaled: torch.Tensor, out: torch.Tensor | None = None, *, limit: float = math.inf
    ) -> torch.Tensor:
        """The gradient where `low < scaled < high`, and below a limit, else 0: what a hardtanh lets through."""
        result = gradient if out is None else out  # in place where it may be
        passed: torch.Tensor = torch.ops.aten.hardtanh_backward.grad_input(
            gradient, scaled, self.low, min(self.high, limit), grad_input=result
        )
        return passed


class RoundActivation(torch.autograd.Function):
    """Fake-quantizes a tensor by one scale.

    Little is kept for the backward pass. A gradient that is only clipped needs a bit of each value, where no other
    operator keeps `x` anyway. The result of a batch norm is computed again from what that keeps. Else `x` itself is
    kept and rounded again: behind a ReLU that costs no memory, since the ReLU keeps its result, and the layer that
    reads the rounded tensor need not keep that (`rounded_again`).

    PACT's threshold (`clipping_only`) feels clipped values and not how others are rounded: `dy/ds = c` where clipped,
    else 0 (Choi et al. 2018, eq. 3, with `alpha = s * high`). A zero point that learns moves the whole grid, so it,
    too, is felt where values are clipped: `dy/dz = -s` there, else 0.

    With a `ceiling` the tensor is first clipped to it (a ReLU6 that has not run, on a grid that begins at 0): the
    largest code is that of the ceiling, and values beyond it have no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        scale: torch.Tensor,
        zero_point: torch.Tensor | None,
        grid: Grid,
        clipping_only: bool,
        ceiling: float | None,
    ) -> torch.Tensor:
        """`x`: float32, any shape; `scale`, `zero_point`: float32 []; returns the shape of `x`."""
        x = _dense(x)
        ctx.grid, ctx.clipping_only, ctx.ceiling = grid, clipping_only, ceiling
        ctx.rounding = grid if ceiling is None else grid.below(ceiling, scale)
        learns, is_eager = ctx.needs_input_grad[1], not torch.compiler.is_compiling()
        ctx.norm = BatchNormResult.of(x) if learns and is_eager else None
        ctx.layout, kept = None, x
        if is_eager and not learns and is_kept_by_nobody(x):
            high = grid.high * scale
            inside = Inside.of(x, grid.low * scale, high if ceiling is None else high.clamp(max=ceiling))
            ctx.layout, kept = inside.layout, inside.mask
        ctx.keeps_x = ctx.norm is None and ctx.layout is None
        ctx.save_for_backward(scale if ctx.norm is not None else kept, scale)
        return _rounded(x, scale, ctx.rounding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See the module."""
        kept, scale = ctx.saved_tensors
        if ctx.layout is not None:
            return Inside(kept, ctx.layout).passed(gradient), None, None, None, None, None
        grid = ctx.grid
        _, wants_scale, wants_zero, *_ = ctx.needs_input_grad
        if not wants_scale and reads_numbers(kept):
            step = float(scale)
            high = grid.high * step if ctx.ceiling is None else min(grid.high * step, ctx.ceiling)
            passed = torch.ops.aten.hardtanh_backward(gradient, kept, grid.low * step, high)
            return passed, None, None, None, None, None
        gradient = gradient.contiguous(memory_format=_layout(kept if ctx.norm is None else ctx.norm.input))
        result = torch.empty_like(gradient)
        by_scale: list[torch.Tensor] = []
        clipped = torch.zeros_like(scale) if wants_zero else None
        limit = math.inf if ctx.ceiling is None else ctx.ceiling / float(scale)
        for within, above, passed in _divided(kept if ctx.norm is None else ctx.norm, scale, gradient, result):
            grid.pass_inside(above, within, out=passed, limit=limit)
            if clipped is not None:
                clipped += above.sum() - passed.sum()
            if wants_scale:
                by_scale.append(_by_scale(above, passed, within, grid, limit, clipping_only=ctx.clipping_only))
        summed = torch.stack(by_scale).sum().reshape(scale.shape) if by_scale else None
        return result, summed, None if clipped is None else -scale * clipped, None, None, None


def _by_scale(
    above: torch.Tensor, passed: torch.Tensor, within: torch.Tensor, grid: Grid, limit: float, *, clipping_only: bool
) -> torch.Tensor:
    """`sum(above * dy/ds)`, of `dy/ds = c - v` inside and `c` where clipped; overwrites `within`, which is `v`.

    As `sum(above * c) - sum(passed * v)`, since passes over memory are what costs. What cancels is 1e-5 of the sum in
    8 bits, and 1e-3 in 16.
    """
    if limit < grid.high:  # the ceiling comes first: what it clips counts as a value there, and nothing above is cut
        if clipping_only:
            return above.new_zeros(())
        within.clamp_(grid.low, limit)
        by_value = torch.dot(above, within)
        return torch.dot(above, grid.nearest_(within)) - by_value
    if clipping_only:
        within.clamp_(grid.low, grid.high)
        return torch.dot(above, within) - torch.dot(passed, within)
    by_value = torch.dot(passed, within)
    return torch.dot(above, grid.nearest_(within)) - by_value


class RoundDynamic(torch.autograd.Function):
    """Fake-quantizes a tensor by the scale, or the scales of blocks, that its own values have.

    Straight through, since the largest value makes the scale; only MX's scales, which are rounded down, clip values,
    and those get no gradient. A value at the very end of the range may round beyond it and counts as inside.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, qparams: QParams) -> torch.Tensor:
        """float32, any shape."""
        low, high = (aligned(bound, qparams, x) for bound in qparams.range)
        slack = aligned(qparams.scale, qparams, x) / 2 if isinstance(qparams.spec.format, IntFormat) else 0.0
        ctx.save_for_backward((x >= low - slack) & (x <= high + slack))
        return fake_quantize(x, qparams)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See the class."""
        (inside,) = ctx.saved_tensors
        return gradient * inside, None


class RoundWeight(torch.autograd.Function):
    """`multiplier * clamp(round(w / divisor), low, high)`: rounds and folds a weight in one go.

    With `divisor = multiplier = s` this is fake quantization; a folded batch norm makes them differ by its factor.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, divisor: torch.Tensor, multiplier: torch.Tensor | None, grid: Grid
    ) -> torch.Tensor:
        """All float32; `divisor` and `multiplier`, which is the same if None, broadcast against `weight`."""
        ctx.grid = grid
        ctx.save_for_backward(weight, divisor, multiplier)
        return grid.nearest_(weight / divisor).mul_(divisor if multiplier is None else multiplier)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See the module; `d/d divisor = -v * multiplier / divisor` inside, `d/d multiplier = c`."""
        weight, divisor, multiplier = ctx.saved_tensors
        _, wants_divisor, wants_multiplier, _ = ctx.needs_input_grad
        scaled = weight / divisor
        above = gradient.clone() if multiplier is None else gradient * (multiplier / divisor)
        passed = ctx.grid.pass_inside(above, scaled)
        by_divisor = by_multiplier = None
        if multiplier is None and wants_divisor:  # each weight's difference, and then the sum: nothing cancels
            inside = passed * scaled
            by_divisor = ctx.grid.nearest_(scaled).mul_(gradient).sub_(inside).sum_to_size(divisor.shape)
        elif wants_divisor:
            by_divisor = (passed * scaled).neg_().sum_to_size(divisor.shape)
        if wants_multiplier:
            assert multiplier is not None
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


def round_activation(
    x: torch.Tensor,
    scale: torch.Tensor,
    grid: Grid,
    *,
    zero_point: torch.Tensor | None = None,
    clipping_only: bool = False,
    ceiling: float | None = None,
) -> torch.Tensor:
    """See `RoundActivation`; a zero point is given where it learns, and is in the grid already."""
    result: torch.Tensor = RoundActivation.apply(  # type: ignore[no-untyped-call]
        x, scale, zero_point, grid, clipping_only, ceiling
    )
    return result


def rounded_again(operand: torch.Tensor) -> AbstractContextManager[Any]:
    """Inside, an operator that keeps `operand` for its backward pass rounds it again there instead.

    A network in low precision would otherwise keep each activation twice: as its ReLU returned it, and rounded. Where
    `operand` is no rounded tensor, or something else decides already what is kept (checkpointing, offloading), the
    operator keeps it as ever.
    """
    node: Any = operand.grad_fn
    is_rounded = type(operand.grad_fn) is RoundActivation._backward_cls
    if not is_rounded or not node.keeps_x or torch.compiler.is_compiling():
        return nullcontext()
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        return nullcontext()
    place = (operand.data_ptr(), operand.shape, operand.stride())

    def pack(tensor: torch.Tensor) -> Any:
        return node if (tensor.data_ptr(), tensor.shape, tensor.stride()) == place else tensor

    def unpack(kept: Any) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        x, scale = kept.saved_tensors
        return _rounded(x, scale, kept.rounding)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def round_dynamic(x: torch.Tensor, qparams: QParams) -> torch.Tensor:
    """See `RoundDynamic`."""
    result: torch.Tensor = RoundDynamic.apply(x, qparams)  # type: ignore[no-untyped-call]
    return result


def round_weight(weight: torch.Tensor, divisor: torch.Tensor, multiplier: torch.Tensor, grid: Grid) -> torch.Tensor:
    """See `RoundWeight`."""
    factor = None if multiplier is divisor else multiplier
    result: torch.Tensor = RoundWeight.apply(weight, divisor, factor, grid)  # type: ignore[no-untyped-call]
    return result


def straight_through(value: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """See `StraightThrough`."""
    result: torch.Tensor = StraightThrough.apply(value, exact)  # type: ignore[no-untyped-call]
    return result


def _rounded(x: torch.Tensor, scale: torch.Tensor, grid: Grid) -> torch.Tensor:
    result = torch.empty_like(x)
    for part, out in _pieces(x, result):
        grid.nearest_(torch.div(part, scale, out=out)).mul_(scale)
    return result


def _layout(x: torch.Tensor) -> torch.memory_format:
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last


def _dense(x: torch.Tensor) -> torch.Tensor:
    """`x` itself where its elements lie side by side, in whichever order."""
    return x if is_dense(x) else x.contiguous()


def _pieces(*tensors: torch.Tensor, scratch: int = 0) -> Iterator[tuple[torch.Tensor, ...]]:
    """Flat views of tensors of one layout, piece by piece on a CPU and whole elsewhere.

    Args:
        tensors: of one shape and layout.
        scratch: how many tensors to write into come behind them; the same memory for every piece.
    """
    count = tensors[0].numel()
    size = min(_PIECE, count) if tensors[0].device.type == "cpu" else count
    flat = [tensor.as_strided((count,), (1,)) for tensor in tensors]
    spare = [tensors[0].new_empty(size) for _ in range(scratch)]
    for parts in zip(*(torch.split(each, max(1, size)) for each in flat), strict=True):
        length = parts[0].numel()
        yield (*parts, *(each[:length] for each in spare))


def _divided(
    x: torch.Tensor | BatchNormResult, scale: torch.Tensor, *beside: torch.Tensor
) -> Iterator[tuple[torch.Tensor, ...]]:
    """`x / scale` piece by piece, in memory that may be written to, with those pieces of dense tensors of its layout.

    The result of a batch norm is computed again for each piece, and divided by it in the same pass.
    """
    if isinstance(x, torch.Tensor):
        for part, *others, scratch in _pieces(x, *beside, scratch=1):
            yield torch.div(part, scale, out=scratch), *others
        return
    samples = max(1, _PIECE * len(x.input) // x.input.numel())
    cut = [torch.split(each, samples) for each in beside]
    for parts in zip(x.divided(scale, samples), *cut, strict=True):
        yield tuple(each.as_strided((each.numel(),), (1,)) for each in parts)
