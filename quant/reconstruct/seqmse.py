"""SeqMSE: each row's scale is the one that leaves the least error in the layer's result, layer after layer.

Calibration chooses a weight's scale by the weight alone. With the inputs in view (as in AIMET's sequential MSE),

    factor = argmin over f of  (W - Q_f(W)) H (W - Q_f(W))^T,    H = E[x x^T]

for each row, where `Q_f` rounds to nearest with `f` times the scale. The weight is refitted before and rounded by GPTQ
after. Where rows do not have scales of their own, in any number (per tensor, blocks, powers of two), it is GPTQ alone.
In the row `rounding_methods` (W4A8, scales of the least squared error) nothing sets it apart from GPTQ.
"""

from __future__ import annotations

import torch

from bitwright.quant.reconstruct.gptq import ROUNDING as GPTQ
from bitwright.quant.reconstruct.gptq import gptq
from bitwright.quant.reconstruct.grid import Grid
from bitwright.quant.reconstruct.method import LayerData, Rounded, rounded_bias
from bitwright.quant.reconstruct.refit import refit

FACTORS = tuple(0.6 + 0.05 * step for step in range(13))  # 0.6 … 1.2, 1.0 among them


class SeqMse:
    """See the module."""

    name = "seqmse"
    samples = GPTQ.samples
    wants_products = True
    position_bytes = 0

    def round(self, data: LayerData) -> Rounded:
        """See the module."""
        if not data.rows_have_scales:
            return GPTQ.round(data)
        fit = refit(data.halves, bias=data.has_bias)
        wanted = data.weight + fit.change
        hessian = data.hessian_()
        factors = best_factors(wanted, hessian, data.grid)
        weight = gptq(wanted, hessian, data.grid.scaled(factors))
        return Rounded(weight, rounded_bias(data, weight, fit.follows), wanted, factors)


def best_factors(weight: torch.Tensor, hessian: torch.Tensor, grid: Grid) -> torch.Tensor:
    """For each row of a weight `[G, R, K]` the factor of its scale that leaves the least error, float32 `[G, R]`."""
    errors = []
    for factor in FACTORS:
        change = grid.scaled(torch.full(weight.shape[:2], factor)).nearest(weight).to(hessian.dtype) - weight
        errors.append(((change.to(hessian.dtype) @ hessian) * change).sum(2))
    return torch.tensor(FACTORS)[torch.stack(errors).argmin(0)]


ROUNDING = SeqMse()
