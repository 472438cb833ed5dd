"""GPTQ against the algorithm that it speeds up, and against rounding to nearest."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.quant.formats import FORMATS
from bitwright.quant.reconstruct.gptq import DAMPING, gptq
from bitwright.quant.reconstruct.grid import Grid
from bitwright.quant.scheme import Granularity, QParamsSpec
from bitwright.quant.weights import choose_weight_qparams

Floats = npt.NDArray[np.float64]
INT4 = QParamsSpec(format=FORMATS["int4"], symmetric=True, granularity=Granularity.PER_CHANNEL)
BLOCKS = replace(INT4, granularity=Granularity.PER_BLOCK, block_size=4)


def as_matrix(groups: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda values: values.expand(groups * 5, 12).reshape(groups, 5, 12)


def problem(groups: int, spec: QParamsSpec, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Grid]:
    """A weight `[G, 5, 12]`, the moments of correlated inputs, and a grid."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups * 5, 12, generator=generator)
    mixing = torch.randn(groups, 12, 12, generator=generator, dtype=torch.float64)
    columns = mixing @ torch.randn(groups, 12, 40, generator=generator, dtype=torch.float64)
    matrix = as_matrix(groups)
    qparams = choose_weight_qparams(weight, spec, 0 if spec.block_size is None else 1)
    return matrix(weight), columns @ columns.transpose(1, 2) / 40, Grid.of(qparams, weight, matrix)


def optimal_brain_quantizer(weight: Floats, hessian: Floats, scale: Floats, low: int, high: int) -> Floats:
    """Column by column with the inverse itself: Frantar et al. 2022, equations 2 and 3; no Cholesky factor."""
    weight, rounded = weight.copy(), np.zeros_like(weight)
    inverse = np.linalg.inv(hessian)
    for k in range(weight.shape[1]):
        rounded[:, k] = np.clip(np.round(weight[:, k] / scale[:, k]), low, high) * scale[:, k]
        error = (weight[:, k] - rounded[:, k]) / inverse[k, k]
        weight -= np.outer(error, inverse[k])
        inverse -= np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    return rounded


@pytest.mark.parametrize("spec", [INT4, BLOCKS], ids=["per channel", "per block"])
@pytest.mark.parametrize("groups", [1, 3])
def test_the_columns_are_those_of_the_papers_equations(groups: int, spec: QParamsSpec) -> None:
    weight, hessian, grid = problem(groups, spec)
    found = gptq(weight, hessian, grid)
    order = np.argsort(-hessian.diagonal(dim1=1, dim2=2).sum(0).numpy(), kind="stable")
    for group in range(groups):
        h = hessian[group].numpy()[np.ix_(order, order)]
        h = h + DAMPING * np.mean(np.diag(h)) * np.eye(12)
        w, s = (part[group].double().numpy()[:, order] for part in (weight, grid.scale))
        expected = optimal_brain_quantizer(w, h, s, *INT4.code_range)
        np.testing.assert_allclose(found[group].numpy()[:, order], expected, rtol=1e-6)


@given(seed=st.integers(0, 10_000), groups=st.sampled_from([1, 2]))
@settings(max_examples=40, deadline=None)
def test_the_error_of_the_results_is_below_that_of_nearest(seed: int, groups: int) -> None:
    """Over the rows of a layer; a single row of so few columns may be lucky with nearest."""
    weight, hessian, grid = problem(groups, INT4, seed)

    def error(rounded: torch.Tensor) -> float:
        change = rounded.double() - weight.double()
        return float(((change @ hessian) * change).sum())

    assert error(gptq(weight, hessian, grid)) < error(grid.nearest(weight))


def test_inputs_that_have_nothing_in_common_leave_nearest() -> None:
    weight, _, grid = problem(1, INT4)
    diagonal = torch.diag(torch.arange(1.0, 13.0)).double()[None]
    assert torch.equal(gptq(weight, diagonal, grid), grid.nearest(weight))


def test_dead_inputs_are_rounded_to_nearest() -> None:
    weight, hessian, grid = problem(1, INT4)
    hessian[:, 3], hessian[:, :, 3] = 0.0, 0.0
    assert torch.equal(gptq(weight, hessian, grid)[..., 3], grid.nearest(weight)[..., 3])


def test_float_formats_are_rounded_to_their_own_grid() -> None:
    spec = replace(INT4, format=FORMATS["float8_e4m3fn"])
    weight, hessian, grid = problem(1, spec)
    found = gptq(weight, hessian, grid)
    assert torch.equal(grid.nearest(found), found)
    assert not torch.equal(found, grid.nearest(weight))
