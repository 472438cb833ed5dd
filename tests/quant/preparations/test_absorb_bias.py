"""High biases move into the next layer: exact on what was seen, the paper's amount, and only where it holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.preparations.absorb_bias import PREPARATION
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import QuantScheme

HIGH = (0, 3)  # channels whose values lie far above 0


def network(activation: nn.Module, reader: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), activation, reader or nn.Conv2d(8, 6, 1), nn.ReLU())
    made[0].bias.data[list(HIGH)] += 4.0
    return made.eval()


def samples(count: int, first: int = 0) -> list[torch.Tensor]:
    return [torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(first, count)]


def captured(model: nn.Module) -> CapturedModel:
    return capture(model, (torch.zeros(2, 3, 8, 8),))


def prepared(model: CapturedModel, scheme: QuantScheme) -> CapturedModel:
    return PREPARATION.prepare(model, scheme, [(x,) for x in samples(16)])


@pytest.mark.parametrize("reader", [nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 3, stride=2), nn.Conv2d(8, 16, 3, groups=8)])
def test_nothing_changes_on_what_was_seen(reader: nn.Module, u8s8: QuantScheme) -> None:
    model = captured(network(nn.ReLU(), reader))
    after = prepared(model, u8s8)
    assert any(not torch.equal(value, after.values[name]) for name, value in model.values.items())
    for x in samples(16):
        torch.testing.assert_close(after.run(x), model.run(x), rtol=1e-5, atol=1e-5)


def test_what_moves_is_the_papers_amount_or_the_smallest_value_seen(u8s8: QuantScheme) -> None:
    model = network(nn.ReLU())
    after = prepared(captured(model), u8s8)
    before = torch.stack(samples(16)).flatten(0, 1)
    values = model[0](before).movedim(1, 0).flatten(1).detach().numpy().astype(np.float64)
    expected = np.minimum(values.mean(1) - 3 * values.std(1), values.min(1)).clip(min=0)
    (bias,) = (value for name, value in after.values.items() if name.endswith("0_bias") and len(value) == 8)
    found = model[0].bias.detach().numpy() - bias.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert set(np.flatnonzero(expected)) == set(HIGH)


@pytest.mark.parametrize(
    ("activation", "reader"),
    [
        (nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1)),  # zeros beside the channels
        (nn.ReLU(), nn.Conv2d(8, 6, 1, groups=2)),
        (nn.ReLU6(), nn.Conv2d(8, 6, 1)),  # values come near 6
        (nn.LeakyReLU(), nn.Conv2d(8, 6, 1)),
    ],
)
def test_it_is_left_alone_where_it_does_not_hold(activation: nn.Module, reader: nn.Module, u8s8: QuantScheme) -> None:
    model = captured(network(activation, reader))
    after = prepared(model, u8s8)
    assert all(torch.equal(value, after.values[name]) for name, value in model.values.items())


def test_a_clamp_that_nothing_reaches_is_a_relu(u8s8: QuantScheme) -> None:
    model = captured(network(nn.Hardtanh(0.0, 100.0)))
    after = prepared(model, u8s8)
    assert any(not torch.equal(value, after.values[name]) for name, value in model.values.items())
    torch.testing.assert_close(after.run(samples(1)[0]), model.run(samples(1)[0]), rtol=1e-5, atol=1e-5)


def test_the_quantized_network_comes_nearer(make_scheme: Callable[..., QuantScheme]) -> None:
    model, scheme = captured(network(nn.ReLU())), make_scheme("uint4", "int8")

    def noise(*names: str) -> float:
        quantized = quantize(model, scheme, samples(16), preparations=names, bias_correction=False)
        return sum(float((quantized.run(x) - model.run(x)).square().mean()) for x in samples(32, 16))

    assert noise("absorb_bias") < 0.7 * noise()


def test_the_prepared_network_runs_in_onnx_runtime(u8s8: QuantScheme, tmp_path: Path, run_onnx: Any) -> None:
    model = captured(network(nn.ReLU()))
    file = export_float(prepared(model, u8s8).graph, tmp_path / "prepared.onnx")
    (x,) = samples(1)
    (found,) = run_onnx(file, {"input": x.numpy()})
    np.testing.assert_allclose(found, model.run(x).numpy(), rtol=1e-4, atol=1e-5)
