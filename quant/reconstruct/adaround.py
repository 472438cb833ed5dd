"""AdaRound (Nagel et al. 2020, arXiv:2004.10568): which weights are rounded up is learned by gradient descent.

With `h(V) = clamp(sigmoid(V) (zeta - gamma) + gamma, 0, 1)` (equation 23) a weight is `s clamp(floor(w / s) + h(V))`;

    E |f(W x_float + b) - f(W_soft x + b')|^2 / E_0 + lambda mean(1 - |2 h(V) - 1|^beta)     (equations 24 and 25)

is minimized over V: f is the activation behind the layer, x what the quantized network feeds it (asymmetric
reconstruction), and beta falls from 20 to 2, so that h ends at 0 or 1. The error is taken in units of E_0, that of
rounding to nearest, so that lambda means the same for every layer. Learning starts from the refitted weight; what a
column or sample counts is that of `moments`.

In the row `rounding_methods` (W4A8) it takes over ten times as long as GPTQ and is nowhere nearer to float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bitwright.quant.formats import IntFormat
from bitwright.quant.reconstruct.gptq import gptq
from bitwright.quant.reconstruct.grid import Grid
from bitwright.quant.reconstruct.method import LayerData, Rounded, rounded_bias
from bitwright.quant.reconstruct.refit import refit

ZETA, GAMMA = 1.1, -0.1  # section 3.3 of the paper
BETA = (20.0, 2.0)
WARM_UP = 0.2  # of the steps, without the regularizer
STRENGTH = 5.0  # weaker ones leave weights in between, which the last rounding then moves at random
STEPS = 500
RATE = 1e-2
CHOSEN = 0.7  # how near to a rounding that is already good learning starts
_BATCH = 1024  # positions
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
    position_bytes = 64 << 20

    def round(self, data: LayerData) -> Rounded:
        """See the module."""
        fit = refit(data.halves, bias=data.has_bias)
        wanted = data.weight + fit.change
        if isinstance(data.grid.spec.format, IntFormat):
            data.halves[:] = [half.of_first_order() for half in data.halves]  # room for what is learned
            weight = _learned(data, wanted, rounded_bias(data, wanted, fit.follows))
        else:
            weight = gptq(wanted, data.hessian_(), data.grid)
        return Rounded(weight, rounded_bias(data, weight, fit.follows))


def _learned(data: LayerData, wanted: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    assert data.positions is not None
    columns, truth, shares = data.positions.joined()
    truth = truth.clamp_(*data.layer.bounds)
    bias = (data.bias + shift).to(torch.float32)[:, :, None]

    def error(weight: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        result = (weight @ columns[:, :, chosen] + bias).clamp(*data.layer.bounds)
        return ((result - truth[:, :, chosen]).square() * shares[chosen]).sum((0, 1)).mean()

    everything = torch.arange(len(shares))
    nearest = data.grid.nearest(wanted)
    unit = float(error(nearest, everything)) + torch.finfo(torch.float32).tiny
    soft, start = SoftRounding.of(wanted, data.grid)
    generator = torch.Generator().manual_seed(_SEED)
    with torch.enable_grad():
        v = start.requires_grad_(True)
        optimizer = torch.optim.Adam([v], lr=RATE)
        for step in range(STEPS):
            chosen = torch.randint(len(shares), (min(_BATCH, len(shares)),), generator=generator)
            h = rectified_sigmoid(v)
            loss = error(soft.weight(h), chosen) / unit
            beta = beta_of(step / STEPS)
            if beta is not None:
                loss = loss + STRENGTH * (1.0 - (2.0 * h - 1.0).abs().pow(beta)).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    hard = data.grid.nearest(soft.weight((rectified_sigmoid(v.detach()) >= 0.5).to(torch.float32)))
    return hard if float(error(hard, everything)) < unit else nearest


def beta_of(progress: float) -> float | None:
    """The exponent at a share of all steps: a cosine from the first to the last; None while warming up."""
    if progress < WARM_UP:
        return None
    falling = 0.5 * (1.0 + math.cos(math.pi * (progress - WARM_UP) / (1.0 - WARM_UP)))
    return BETA[1] + (BETA[0] - BETA[1]) * falling


ROUNDING = AdaRound()
