"""AdaRound (Nagel et al. 2020, arXiv:2004.10568): which weights are rounded up is learned by gradient descent.

With `h(V) = clamp(sigmoid(V) (zeta - gamma) + gamma, 0, 1)` (equation 23) a weight is `s clamp(floor(w / s) + h(V))`;

    E |f(W x_float + b) - f(W_soft x + b')|^2 / E_0 + lambda mean(1 - |2 h(V) - 1|^beta)     (equations 24 and 25)

is minimized over V: f is the activation behind the layer, x what the quantized network feeds it (asymmetric
reconstruction), and beta falls from 20 to 2, so that h ends at 0 or 1. Learning starts near GPTQ's rounding of the
refitted weight, and what was learned is taken only where it leaves less error in samples that are kept out of it. The
error is taken in units of E_0, that of the start, so that lambda means the same for every layer; what a column or
sample counts is that of `moments`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from bitwright.quant.formats import IntFormat
from bitwright.quant.reconstruct.gptq import gptq
from bitwright.quant.reconstruct.grid import Grid
from bitwright.quant.reconstruct.method import LayerData, Rounded, Seen, rounded_bias
from bitwright.quant.reconstruct.refit import Fit, refit

ZETA, GAMMA = 1.1, -0.1  # section 3.3 of the paper
BETA = (20.0, 2.0)
WARM_UP = 0.2  # of the steps, without the regularizer
# 200 calibration patches of a ResNet-20 in 4 bits, three quarters for learning: these leave 0.0 dB more to 0.04 dB less
# than the start in the layers' other quarter of samples, rates of 3e-2 0.2 to 1.8 dB more whatever the strength.
STRENGTH = 20.0
STEPS = 200
RATE = 1e-2
CHOSEN = 0.7  # how near to a rounding that is already good learning starts
HELD_OUT = 4  # every so-many-th sample judges
_BATCH = 256  # positions
_SEED = 0


def rectified_sigmoid(v: torch.Tensor) -> torch.Tensor:
    """`h(V)`, in [0, 1]."""
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)


def inverse_rectified_sigmoid(h: torch.Tensor) -> torch.Tensor:
    """The V of an h in [0, 1]."""
    inner = (h - GAMMA) / (ZETA - GAMMA)
    return torch.log(inner / (1.0 - inner))


@dataclass(frozen=True)
class SoftRounding:
    """A weight between its two neighbours on the grid.

    Attributes:
        grid: of integers.
        below: the codes below the weight, without their zero point.
    """

    grid: Grid
    below: torch.Tensor

    @classmethod
    def of(cls, wanted: torch.Tensor, grid: Grid) -> tuple[SoftRounding, torch.Tensor]:
        """The neighbours of a weight `[G, R, K]`, and the V that gives it back."""
        scaled = wanted.to(torch.float32) / grid.scale
        below = scaled.floor()
        return cls(grid, below), inverse_rectified_sigmoid(scaled - below)

    @classmethod
    def around(cls, wanted: torch.Tensor, chosen: torch.Tensor, grid: Grid) -> tuple[SoftRounding, torch.Tensor]:
        """The neighbours between which a chosen weight lies next to the wanted one, and a V near the chosen one."""
        scaled = wanted.to(torch.float32) / grid.scale
        codes = (chosen / grid.scale).round()
        below = torch.minimum(torch.maximum(scaled.floor(), codes - 1.0), codes)
        h = CHOSEN * (codes - below) + (1.0 - CHOSEN) * (scaled - below).clamp(0.0, 1.0)
        return cls(grid, below), inverse_rectified_sigmoid(h)

    @cached_property
    def clipped(self) -> torch.Tensor:
        """Which weights lie at or beyond an end of the grid, and move nowhere."""
        low, high = self.grid.spec.code_range
        return (self.below < low - self.grid.zero_point) | (self.below >= high - self.grid.zero_point)

    def weight(self, h: torch.Tensor) -> torch.Tensor:
        """The weight that is `h` of the way up, `[G, R, K]`."""
        low, high = self.grid.spec.code_range
        zero_point = self.grid.zero_point
        codes = torch.minimum(torch.maximum(self.below + h, low - zero_point), high - zero_point)
        return codes * self.grid.scale


class AdaRound:
    """Learns which of its two neighbours each weight becomes; formats of floats, whose steps differ, take GPTQ."""

    name = "adaround"
    samples = 256
    wants_products = True
    position_bytes = 32 << 20

    def round(self, data: LayerData) -> Rounded:
        """See the module."""
        fit = refit(data.halves, bias=data.has_bias)
        wanted = data.weight + fit.change
        weight = gptq(wanted, data.hessian_(), data.grid)
        if isinstance(data.grid.spec.format, IntFormat):
            weight = _Learning(data, fit).better_than(weight)
        return Rounded(weight, rounded_bias(data, weight, fit.follows), wanted)


class _Learning:
    """Of one layer, on some positions of its inputs; every `HELD_OUT`-th sample judges."""

    def __init__(self, data: LayerData, fit: Fit) -> None:
        assert data.positions is not None
        self.data, self.fit = data, fit
        samples = range(len(data.positions.columns))
        judges = [sample for sample in samples if sample % HELD_OUT == HELD_OUT - 1]
        self.seen = data.positions.joined([sample for sample in samples if sample not in judges])
        self.judges = data.positions.joined(judges) if judges else None

    def better_than(self, chosen: torch.Tensor) -> torch.Tensor:
        """What was learned from a rounding `[G, R, K]`, or that rounding where it is no better."""
        if self.judges is None:
            return chosen
        learned = self._learned(chosen)
        before, after = (self._error(each, self._bias(each), self.judges) for each in (chosen, learned))
        return learned if float(after) < float(before) else chosen

    def _learned(self, chosen: torch.Tensor) -> torch.Tensor:
        soft, v = SoftRounding.around(self.data.weight + self.fit.change, chosen, self.data.grid)
        bias = self._bias(chosen)
        unit = float(self._error(chosen, bias, self.seen)) + torch.finfo(torch.float32).tiny
        generator = torch.Generator().manual_seed(_SEED)
        count = self.seen.shares.numel()
        optimizer = torch.optim.Adam([v], lr=RATE)
        for step in range(STEPS):
            picks = torch.randint(count, (min(_BATCH, count),), generator=generator)
            columns, truth, shares = (part[..., picks] for part in self.seen)
            seen = Seen(columns, truth, shares / unit)
            v.grad = gradient(soft, v, bias, seen, self.data.layer.bounds, beta_of(step / STEPS))
            optimizer.step()
        return self.data.grid.nearest(soft.weight((rectified_sigmoid(v) >= 0.5).to(torch.float32)))

    def _bias(self, weight: torch.Tensor) -> torch.Tensor:
        """The layer's bias beside a rounded weight, `[G, R, 1]`."""
        shift = rounded_bias(self.data, weight, self.fit.follows)
        return (self.data.bias + shift).to(torch.float32)[:, :, None]

    def _error(self, weight: torch.Tensor, bias: torch.Tensor, seen: Seen) -> torch.Tensor:
        return error(weight, bias, seen, self.data.layer.bounds)


def error(weight: torch.Tensor, bias: torch.Tensor, seen: Seen, bounds: tuple[float, float]) -> torch.Tensor:
    """What a weight `[G, R, K]` beside a bias `[G, R, 1]` leaves, a number: the mean over the positions."""
    result = torch.baddbmm(bias, weight, seen.columns).clamp(*bounds)
    return ((result - seen.truth.clamp(*bounds)).square() * seen.shares).sum((0, 1)).mean()


def gradient(
    soft: SoftRounding,
    v: torch.Tensor,
    bias: torch.Tensor,
    seen: Seen,
    bounds: tuple[float, float],
    beta: float | None,
) -> torch.Tensor:
    """Of `error` of the soft weight and the regularizer, by V; `[G, R, K]`.

    Written out, since autograd takes three times as long: of a wide layer every pass over its weights counts.
    """
    sigmoid = torch.sigmoid(v)
    h = (sigmoid * (ZETA - GAMMA)).add_(GAMMA)
    still = (h <= 0.0).logical_or_(h >= 1.0)
    h.clamp_(0.0, 1.0)
    result = torch.baddbmm(bias, soft.weight(h), seen.columns)
    lack = (result.clamp(*bounds) - seen.truth.clamp(*bounds)) * seen.shares * (2.0 / seen.shares.numel())
    lack.masked_fill_((result <= bounds[0]) | (result >= bounds[1]), 0.0)
    slope = (lack @ seen.columns.mT).mul_(soft.grid.scale).masked_fill_(soft.clipped, 0.0)
    if beta is not None:
        centred = h.mul_(2.0).sub_(1.0)
        push = centred.abs().pow_(beta - 1.0).copysign_(centred)
        slope.sub_(push, alpha=2.0 * STRENGTH * beta / v.numel())
    return slope.mul_((1.0 - sigmoid).mul_(sigmoid).mul_(ZETA - GAMMA)).masked_fill_(still, 0.0)


def beta_of(progress: float) -> float | None:
    """The exponent at a share of all steps: a cosine from the first to the last; None while warming up."""
    if progress < WARM_UP:
        return None
    falling = 0.5 * (1.0 + math.cos(math.pi * (progress - WARM_UP) / (1.0 - WARM_UP)))
    return BETA[1] + (BETA[0] - BETA[1]) * falling


ROUNDING = AdaRound()
