"""QuantEase (Behdin et al. 2023, arXiv:2309.01885): each weight is rounded again, given all others, pass after pass.

With `H = E[x x^T]` and the error `E = Q - W`, the best value of column k while the others stay is

    q_k  <-  round(q_k - (E H)_k / H_kk)

(cyclic coordinate descent); each step leaves less error in the layer's result or the same.
It starts from GPTQ on scales chosen as in `seqmse`, and so ends no worse on the samples it sees; on
others the row `rounding_methods` has it in W4A8 level with GPTQ on one network and 0.8 dB behind on the other.
"""

from __future__ import annotations

import torch

from bitwright.quant.reconstruct.gptq import ROUNDING as GPTQ
from bitwright.quant.reconstruct.gptq import gptq
from bitwright.quant.reconstruct.grid import Grid
from bitwright.quant.reconstruct.method import LayerData, Rounded, rounded_bias
from bitwright.quant.reconstruct.refit import refit
from bitwright.quant.reconstruct.seqmse import best_factors

PASSES = 3
_LAZY = 64  # columns whose changes reach the others together


class QuantEase:
    """See the module."""

    name = "quantease"
    samples = GPTQ.samples
    wants_products = True
    position_bytes = 0

    def round(self, data: LayerData) -> Rounded:
        """See the module."""
        fit = refit(data.halves, bias=data.has_bias)
        wanted = data.weight + fit.change
        hessian = data.hessian_()
        factors = best_factors(wanted, hessian, data.grid) if data.rows_have_scales else None
        grid = data.grid if factors is None else data.grid.scaled(factors)
        weight = descend(gptq(wanted, hessian, grid), wanted, hessian, grid)
        return Rounded(weight, rounded_bias(data, weight, fit.follows), wanted, factors)


def descend(
    rounded: torch.Tensor, weight: torch.Tensor, hessian: torch.Tensor, grid: Grid, *, passes: int = PASSES
) -> torch.Tensor:
    """Lessens `(Q - W) H (Q - W)^T` of each row, column by column.

    Args:
        rounded: where to start, on the grid, `[G, R, K]`.
        weight: what it stands for.
        hessian: `[G, K, K]`.
        grid: the values that the weight may take.
        passes: over all columns.

    Returns:
        float32 `[G, R, K]`, on the grid.
    """
    result, terms = rounded.clone(), rounded.shape[2]
    pull = (rounded.to(hessian.dtype) - weight.to(hessian.dtype)) @ hessian
    own = hessian.diagonal(dim1=1, dim2=2).clamp(min=torch.finfo(torch.float32).tiny)
    for start in [start for _ in range(passes) for start in range(0, terms, _LAZY)]:
        stop = min(start + _LAZY, terms)
        before = result[:, :, start:stop].clone()
        for k in range(start, stop):
            best = grid.nearest(result[:, :, k] - pull[:, :, k] / own[:, None, k], k)
            moved = (best - result[:, :, k]).to(hessian.dtype)
            pull[:, :, start:stop] += moved[:, :, None] * hessian[:, None, k, start:stop]
            result[:, :, k] = best
        moved = (result[:, :, start:stop] - before).to(hessian.dtype)
        pull[:, :, :start] += moved @ hessian[:, start:stop, :start]
        pull[:, :, stop:] += moved @ hessian[:, start:stop, stop:]
    return result


ROUNDING = QuantEase()
