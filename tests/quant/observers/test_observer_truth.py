"""Observers against the definition of what they look for, computed on the raw data."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.formats import FORMATS
from bitwright.quant.observers.base import create_observer
from bitwright.quant.observers.histogram import BINS
from bitwright.quant.qparams import choose_qparams
from bitwright.quant.scheme import QParamsSpec

N = 8000
DISTRIBUTIONS: dict[str, Callable[[], torch.Tensor]] = {
    "gaussian": lambda: torch.randn(N),
    "relu": lambda: torch.randn(N).relu(),
    "laplace": lambda: torch.distributions.Laplace(0, 1).sample((N,)),
    "student": lambda: torch.distributions.StudentT(3.0).sample((N,)),
    "uniform": lambda: torch.rand(N) * 3 - 1,
    "silu": lambda: torch.nn.functional.silu(torch.randn(N) * 2),
    "relu6": lambda: (torch.randn(N) * 4).clamp(0, 6),
}


def observed(spec: QParamsSpec, *batches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    observer = create_observer(spec)
    for batch in batches:
        observer.update(batch)
    return observer.range()


def squared_error(values: torch.Tensor, low: torch.Tensor, high: torch.Tensor, spec: QParamsSpec) -> torch.Tensor:
    qparams = choose_qparams(low, high, spec, axis=0)
    return (values - fake_quantize(values.expand(len(low), -1), qparams)).double().square().mean(1)


@pytest.mark.parametrize("number_format", ["uint8", "int8", "int4", "uint4", "float8_e4m3fn"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_mse_is_as_good_as_the_best_of_a_dense_grid(distribution: str, number_format: str) -> None:
    values = DISTRIBUTIONS[distribution]()[:4000]
    fmt = FORMATS[number_format]
    spec = QParamsSpec(format=fmt, symmetric=not number_format.startswith("u"), observer="mse")
    low, high = values.min().clamp(max=0), values.max().clamp(min=0)
    factors = torch.linspace(0.05, 1, 60 if spec.symmetric else 30)
    if spec.symmetric:
        lows, highs = low * factors, high * factors
    else:
        lows, highs = (grid.flatten() for grid in torch.meshgrid(low * factors, high * factors, indexing="ij"))
    chunks = zip(lows.split(100), highs.split(100), strict=True)
    best = min(float(squared_error(values, *chunk, spec).min()) for chunk in chunks)
    found = squared_error(values, *(end[None] for end in observed(spec, *values.split(1000))), spec)
    # 4096 bins stand for the values, and the grids differ: a few per cent, 0.2 dB.
    assert float(found) <= best * 1.05


def test_mse_with_more_codes_than_bins_still_covers_nearly_everything() -> None:
    values = torch.randn(N)
    spec = QParamsSpec(format=FORMATS["int16"], symmetric=True, observer="mse")
    low, high = observed(spec, values)
    found = squared_error(values, low[None], high[None], spec)
    whole = squared_error(values, values.min()[None], values.max()[None], spec)
    assert float(found) <= 1.05 * float(whole)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 100.0])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_percentile_is_that_of_numpy_to_one_bin(distribution: str, percentile: float) -> None:
    values = DISTRIBUTIONS[distribution]()
    spec = QParamsSpec(
        format=FORMATS["uint8"], symmetric=False, observer="percentile", observer_arguments={"percentile": percentile}
    )
    low, high = (float(end) for end in observed(spec, *values.split(1000)))
    outside = 100 - percentile
    two_sided = float(values.min()) < 0
    tails = (outside / 2, 100 - outside / 2) if two_sided else (0, percentile)
    exact = np.percentile(values.numpy(), tails, method="inverted_cdf")
    width = 2 * 2.0 ** np.ceil(np.log2(float(values.abs().max()))) / BINS
    assert abs(low - exact[0]) <= width
    assert abs(high - exact[1]) <= width


def test_min_max_is_exact() -> None:
    values = torch.randn(100_000)
    low, high = observed(QParamsSpec(format=FORMATS["uint8"], symmetric=False), *values.split(999))
    assert (low, high) == (values.min(), values.max())


def test_moving_average_follows_its_formula() -> None:
    spec = QParamsSpec(
        format=FORMATS["uint8"], symmetric=False, observer="moving_average", observer_arguments={"momentum": 0.25}
    )
    low, high = observed(spec, torch.tensor([-1.0, 2.0]), torch.tensor([-3.0, 10.0]), torch.tensor([0.0, 4.0]))
    assert float(low) == ((-1 * 0.75 - 3 * 0.25) * 0.75 + 0.0)
    assert float(high) == ((2 * 0.75 + 10 * 0.25) * 0.75 + 4 * 0.25)


ENTROPY_U8 = QParamsSpec(format=FORMATS["uint8"], symmetric=False, observer="entropy")
ENTROPY_S8 = QParamsSpec(format=FORMATS["int8"], symmetric=True, observer="entropy")


def test_entropy_clips_a_gaussian_in_its_tails_only() -> None:
    for spec in (ENTROPY_U8, ENTROPY_S8):
        low, high = observed(spec, *torch.randn(60, 8000))
        assert 2.5 < float(high) < 6
        assert -6 < float(low) < -2.5


def test_entropy_keeps_a_uniform_distribution_whole() -> None:
    _, high = observed(ENTROPY_U8, *torch.rand(20, 8000))
    assert float(high) > 0.97


def test_the_zeros_of_relu_do_not_drag_entropy_down() -> None:
    values = torch.randn(40, 8000)
    _, without = observed(ENTROPY_U8, *values.abs())
    _, with_zeros = observed(ENTROPY_U8, *values.relu())
    assert 0.75 * float(without) < float(with_zeros) < 1.33 * float(without)


def test_entropy_of_values_that_are_mostly_zero_keeps_the_rest() -> None:
    values = torch.rand(40, 8000) * (torch.rand(40, 8000) < 0.02)
    _, high = observed(ENTROPY_U8, *values)
    assert float(high) > 0.9
