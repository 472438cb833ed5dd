"""Weights are cut off where that costs least: against a search over all clips."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.preparations.clip_weights import PREPARATION
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import Granularity, QuantScheme


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 64)).eval()
    for layer in (model[0], model[2]):
        layer.weight.data = torch.distributions.StudentT(3.0).sample(layer.weight.shape) * 0.1
    return model


def squared_error(row: np.ndarray, clip: float, largest: int) -> float:
    step = clip / largest
    return float(np.square(row - np.clip(np.rint(row / step), -largest, largest) * step).sum())


def test_each_row_is_cut_off_where_its_squared_error_is_least(make_scheme: Callable[..., QuantScheme]) -> None:
    model = capture(network(), (torch.zeros(1, 64),))
    after = PREPARATION.prepare(model, make_scheme("uint8", "int4"), [(torch.zeros(1, 64),)])
    cut = 0
    for name, weight in model.values.items():
        if weight.dim() != 2:
            continue
        for row, clipped in zip(weight.double().numpy(), after.values[name].double().numpy(), strict=True):
            found = np.abs(clipped).max()
            np.testing.assert_array_equal(clipped, np.clip(row, -found, found))
            best = min(squared_error(row, np.abs(row).max() * f, 7) for f in np.linspace(0.2, 1.0, 2000))
            assert squared_error(row, found, 7) <= 1.1 * best
            cut += found < np.abs(row).max()
    assert cut > 40  # of 80 rows


@pytest.mark.parametrize("granularity", [Granularity.PER_CHANNEL, Granularity.PER_TENSOR])
def test_the_quantized_network_comes_nearer(granularity: Granularity, make_scheme: Callable[..., QuantScheme]) -> None:
    from dataclasses import replace

    scheme = make_scheme("uint8", "int4")
    scheme = replace(scheme, weights=replace(scheme.weights, granularity=granularity))
    model, batches = capture(network(), (torch.zeros(8, 64),)), [torch.randn(8, 64) for _ in range(4)]

    def noise(*names: str) -> float:
        quantized = quantize(model, scheme, batches, preparations=names, bias_correction=False)
        return sum(float((quantized.run(x) - model.run(x)).square().mean()) for x in batches)

    assert noise("clip_weights") < 0.9 * noise()


def test_float_formats_have_nothing_to_cut(fp8: QuantScheme) -> None:
    model = capture(network(), (torch.zeros(1, 64),))
    after = PREPARATION.prepare(model, fp8, [(torch.zeros(1, 64),)])
    assert all(after.values[name] is value for name, value in model.values.items())


def test_means_stay_as_they_are(make_scheme: Callable[..., QuantScheme]) -> None:
    model = capture(network()[:1], (torch.zeros(1, 64),))
    batches = [torch.randn(1, 64) + 1.0 for _ in range(16)]
    after = PREPARATION.prepare(model, make_scheme("uint8", "int4"), [(x,) for x in batches])
    means = [sum(each.run(x) for x in batches) / len(batches) for each in (model, after)]
    torch.testing.assert_close(means[1], means[0], rtol=1e-4, atol=1e-5)
    assert (after.run(batches[0]) - model.run(batches[0])).abs().max() > 1e-2
