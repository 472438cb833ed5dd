"""Errors weighted by channel: the histogram and the range that follows, against brute force."""

import pytest
import torch

from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.formats import FORMATS
from bitwright.quant.observers.histogram import Histogram
from bitwright.quant.observers.importance import Importance
from bitwright.quant.observers.mse import MSEObserver
from bitwright.quant.qparams import choose_qparams
from bitwright.quant.scheme import QParamsSpec

U8 = QParamsSpec(format=FORMATS["uint8"], symmetric=False)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("step", [1, 7])
def test_every_value_has_the_weight_of_its_channel(layout: torch.memory_format, step: int) -> None:
    values = torch.randn(2, 5, 3, 4).to(memory_format=layout)
    weights = torch.arange(1, 6, dtype=torch.float64)
    order = sorted(range(4), key=values.stride, reverse=True)
    expected = weights.reshape(1, 5, 1, 1).expand(values.shape).permute(order).reshape(-1)[::step]
    assert torch.equal(Importance(weights, 1).of_every(values, step), expected)


def test_counts_are_sums_of_weights() -> None:
    values, weights = torch.randn(1, 4, 6, 6), torch.tensor([0.0, 1.0, 2.5, 4.0], dtype=torch.float64)
    histogram = Histogram()
    histogram.update(values, Importance(weights, 1))
    assert float(histogram.counts.sum()) == pytest.approx(float(weights.sum()) * 36)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_loud_sample_counts_by_the_formula(layout: torch.memory_format) -> None:
    """Its energy, each channel as much as it weighs, against the typical one: `(0.1 / (0.1 + E / t))^2`."""
    values, weights = torch.randn(2, 5, 6, 4).to(memory_format=layout), torch.rand(5, dtype=torch.float64)
    energy = float(values.square().mean((0, 2, 3)).double() @ weights)
    histogram, alike = Histogram(), Histogram()
    histogram.update(values, Importance(weights, 1, typical=energy / 10))
    alike.update(values, Importance(weights, 1))
    assert float(histogram.counts.sum() / alike.counts.sum()) == pytest.approx((0.1 / (0.1 + 10)) ** 2, rel=1e-5)
    alike.update(values)  # weighs nothing in particular: each value counts once
    assert float(alike.counts.sum()) == pytest.approx(float(weights.sum()) * 48 + 240)


def test_the_range_serves_the_channel_that_matters() -> None:
    """One channel is wide and does not matter: the range is that of the others, as a search over all ranges finds."""
    values = torch.randn(8, 4, 16, 16)
    values[:, 0] *= 10
    weights = torch.tensor([1e-4, 1.0, 1.0, 1.0], dtype=torch.float64)
    observer = MSEObserver(U8)
    observer.update(values, Importance(weights, 1))
    low, high = observer.range()
    plain = MSEObserver(U8)
    plain.update(values)

    def cost(bounds: tuple[torch.Tensor, torch.Tensor]) -> float:
        error = (values - fake_quantize(values, choose_qparams(*bounds, U8))).square()
        return float((error.sum((0, 2, 3)).double() * weights).sum())

    best = min(cost((values.amin() * f, values.amax() * f)) for f in torch.linspace(0.02, 1, 200))
    assert cost((low, high)) < 0.5 * cost(plain.range())
    assert cost((low, high)) <= 1.3 * best
