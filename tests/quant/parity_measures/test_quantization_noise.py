"""Draws of what rounding to codes does: as large as what is seen, also where one rounding hangs on the one before."""

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import TensorRef
from bitwright.quant.parity import Inputs
from bitwright.quant.parity.torch_links import named_outputs
from bitwright.quant.parity_measures import Verdict, judge_outputs, quantization_draws
from bitwright.quant.parity_measures.noise import QuantizationNoise
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme


class ResidualStream(nn.Module):
    """Blocks that add little to what flows past them, as untrained transformers' do; places are averaged."""

    def __init__(self, blocks: int = 12, width: int = 24) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(width, 8)
        for each in self.blocks:
            nn.init.normal_(each.weight, std=0.002)
            nn.init.normal_(each.bias, std=0.006)  # less than half a step, and the same at every place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.head(x.mean(1))


@pytest.fixture(name="stream")
def _stream(u8s8: QuantScheme) -> tuple[CapturedModel, QuantizedModel, Inputs]:
    torch.manual_seed(0)
    x = torch.randn(2, 512, 24)
    captured = capture(ResidualStream().eval(), (x,))
    return captured, quantize(captured, u8s8, [(x,)]), Inputs(args=(x,))


def _judged(captured: CapturedModel, quantized: QuantizedModel, inputs: Inputs, transform: object = None) -> Verdict:
    draws = quantization_draws(captured, quantized, inputs)
    seen = named_outputs(quantized.run(*inputs.args, transform=transform or quantized.transform))
    (found,) = judge_outputs(draws.clean, seen, draws)
    return found


def test_errors_that_hang_on_each_other_are_expected(stream: tuple[CapturedModel, QuantizedModel, Inputs]) -> None:
    found = _judged(*stream)
    assert found.agrees, found.reason
    assert 0.5 < found.seen / found.expected < 1.5


def test_independent_errors_would_explain_less(stream: tuple[CapturedModel, QuantizedModel, Inputs]) -> None:
    """Why grids are shifted and values rounded, in place of a random error on each value."""
    captured, quantized, inputs = stream
    draw = torch.Generator().manual_seed(0)

    def independent(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        qparams = quantized.qparams.get(ref)
        return tensor if qparams is None else tensor + qparams.scale * (torch.rand(tensor.shape, generator=draw) - 0.5)

    clean, seen = captured.run(*inputs.args), quantized.run(*inputs.args)
    drawn = quantized.run(*inputs.args, transform=independent)
    assert (seen - clean).square().mean().sqrt() > 2 * (drawn - clean).square().mean().sqrt()


@pytest.mark.parametrize("fault", ["rounded down", "zero point"])
def test_faults_are_none_of_that(stream: tuple[CapturedModel, QuantizedModel, Inputs], fault: str) -> None:
    captured, quantized, inputs = stream

    def wrong(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        qparams = quantized.qparams.get(ref)
        if qparams is None:
            return tensor
        if fault == "zero point":
            return quantized.transform(ref, tensor) + qparams.scale
        low, high = qparams.range
        return ((tensor / qparams.scale).floor() * qparams.scale).clamp(low, high)

    found = _judged(captured, quantized, inputs, wrong)
    assert not found.agrees, found.reason


def test_each_value_is_off_by_half_a_step_at_most_and_zero_by_nothing(
    stream: tuple[CapturedModel, QuantizedModel, Inputs],
) -> None:
    _, quantized, _ = stream
    ref, qparams = next((ref, each) for ref, each in quantized.qparams.items() if ref in quantized.plan.activations)
    step, (low, high) = float(qparams.scale), (float(bound) for bound in qparams.range)
    values = torch.cat([torch.linspace(low + step, high - step, 997), torch.tensor([0.0, low, high])])
    errors = torch.stack(
        [
            QuantizationNoise(quantized, torch.Generator().manual_seed(seed)).add(ref, values) - values
            for seed in range(400)
        ]
    ).double()
    assert errors.abs().max() <= step / 2 * (1 + 1e-4)
    assert (errors[:, -3:] == 0).all()
    # Over the draws, each value's error is uniform: its mean square is step**2 / 12, to what 400 draws tell
    # (the mean square of a uniform error has the relative deviation sqrt(4 / 5)).
    mean_squares = errors[:, :-3].square().mean(0).numpy()
    np.testing.assert_allclose(mean_squares, step**2 / 12, rtol=5 * np.sqrt(0.8 / 400))
