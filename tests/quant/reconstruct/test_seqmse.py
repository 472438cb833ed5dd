"""Scales and codes chosen by the error of the results, against trying them all."""

import itertools

import pytest
import torch

from bitwright.quant.formats import FORMATS
from bitwright.quant.reconstruct.gptq import gptq
from bitwright.quant.reconstruct.grid import Grid
from bitwright.quant.reconstruct.quantease import descend
from bitwright.quant.reconstruct.seqmse import FACTORS, best_factors
from bitwright.quant.scheme import Granularity, QParamsSpec
from bitwright.quant.weights import choose_weight_qparams

SPEC = QParamsSpec(format=FORMATS["int4"], symmetric=True, granularity=Granularity.PER_CHANNEL)
ROWS, TERMS = 5, 6


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor, Grid]:
    """A weight `[1, 5, 6]`, the moments of correlated inputs, and a grid."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(ROWS, TERMS, generator=generator)
    columns = torch.randn(TERMS, TERMS, generator=generator) @ torch.randn(TERMS, 50, generator=generator)
    grid = Grid.of(choose_weight_qparams(weight, SPEC, 0), weight, lambda part: part.expand(ROWS, TERMS)[None])
    return weight[None], (columns @ columns.T / 50).double()[None], grid


def errors(rounded: torch.Tensor, weight: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    change = rounded.double() - weight.double()
    return ((change @ hessian) * change).sum(2)


@pytest.mark.parametrize("seed", range(4))
def test_each_row_gets_the_factor_with_the_least_error(seed: int) -> None:
    weight, hessian, grid = problem(seed)
    found = best_factors(weight, hessian, grid)
    for row in range(ROWS):
        tried = {}
        for factor in FACTORS:
            scale = grid.scale[0, row, 0] * factor
            codes = (weight[0, row] / scale).round().clamp(*SPEC.code_range)
            change = (codes * scale - weight[0, row]).double()
            tried[factor] = float(change @ hessian[0] @ change)
        assert tried[min(FACTORS, key=lambda each: abs(each - float(found[0, row])))] == pytest.approx(
            min(tried.values()), rel=1e-4
        )


@pytest.mark.parametrize("seed", range(4))
def test_descent_ends_where_no_single_code_is_better(seed: int) -> None:
    weight, hessian, grid = problem(seed)
    start = gptq(weight, hessian, grid)
    found = descend(start, weight, hessian, grid, passes=20)
    assert torch.equal(grid.nearest(found), found)
    least = errors(found, weight, hessian)
    assert (least <= errors(start, weight, hessian) + 1e-9).all()
    low, high = SPEC.code_range
    for k, code in itertools.product(range(TERMS), range(low, high + 1)):
        other = found.clone()
        other[:, :, k] = code * grid.scale[:, :, k]
        assert (errors(other, weight, hessian) >= least - 1e-6).all()
