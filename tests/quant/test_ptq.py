"""Calibration, weights and bias correction, and what is refused on the way."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bitwright.quant.bias_correction import correct_biases
from bitwright.quant.calibrate import calibrate, split_batch
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.formats import FORMATS
from bitwright.quant.graph import TensorRef
from bitwright.quant.plan import plan
from bitwright.quant.ptq import quantize
from bitwright.quant.qparams import choose_qparams
from bitwright.quant.scheme import Granularity, Override, QParamsSpec, QuantScheme
from bitwright.quant.weights import choose_weight_qparams


class Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        return self.mix(x) + offset


class Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 4)
        self.register_buffer("past", torch.zeros(2, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.past = self.mix(torch.cat([x, self.past], 1)) + 1
        return self.past * 2.0


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()


IMAGES = torch.randn(6, 3, 8, 8)


def test_ranges_are_those_of_all_batches(u8s8: QuantScheme) -> None:
    captured = capture(two_layers(), (IMAGES[:1],))
    decided = plan(captured.graph, u8s8)
    qparams = calibrate(captured, decided, IMAGES.split(1)).qparams
    expected = choose_qparams(IMAGES.min(), IMAGES.max(), u8s8.activations)
    assert qparams[captured.graph.inputs[0]].scale == expected.scale
    assert qparams.keys() == decided.activations.keys()


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("positional", [1, 0])
def test_keyword_arguments_calibrate_as_positional_ones_do(u8s8: QuantScheme, positional: int, rows: int) -> None:
    model, x, offset = Fusion().eval(), torch.randn(6, 8), torch.randn(6, 4)
    pairs = list(zip(x.split(rows), offset.split(rows), strict=True))
    if positional:
        captured = capture(model, (x[:1],), {"offset": offset[:1]})
        batches: list[Any] = [(x, {"offset": offset}) for x, offset in pairs]
    else:
        captured = capture(model, (), {"x": x[:1], "offset": offset[:1]})
        batches = [{"offset": offset, "x": x} for x, offset in pairs]
    named = quantize(captured, u8s8, batches)
    expected = quantize(capture(model, (x[:1], offset[:1])), u8s8, pairs)
    for ref in expected.captured.graph.inputs:
        assert named.qparams[ref].scale == expected.qparams[ref].scale
    arguments = named.captured.arguments(
        (x[:1], {"offset": offset[:1]}) if positional else {"x": x[:1], "offset": offset[:1]}
    )
    assert torch.equal(named.run(*arguments), expected.run(x[:1], offset[:1]))


def test_a_larger_batch_is_cut_and_its_last_piece_filled_up(u8s8: QuantScheme) -> None:
    captured = capture(two_layers(), (IMAGES[:4],))
    pieces = [args[0] for args in split_batch(captured, (IMAGES,))]
    assert torch.equal(torch.cat(pieces), IMAGES[[0, 1, 2, 3, 4, 5, 0, 1]])
    decided = plan(captured.graph, u8s8)
    cut = calibrate(captured, decided, [IMAGES]).qparams
    single = calibrate(capture(two_layers(), (IMAGES[:1],)), decided, IMAGES.split(1)).qparams
    assert cut[captured.graph.inputs[0]].scale == single[captured.graph.inputs[0]].scale


def test_progress_counts_batches(u8s8: QuantScheme) -> None:
    captured, seen = capture(two_layers(), (IMAGES[:1],)), []
    calibrate(captured, plan(captured.graph, u8s8), IMAGES.split(2), progress=seen.append)
    assert seen == [1, 2, 3]


def test_state_advances_in_a_copy(u8s8: QuantScheme) -> None:
    """The model keeps its memory, and so does the captured network; the range grows with each frame."""
    model = Memory().eval()
    frames = [torch.randn(2, 4) for _ in range(4)]
    captured = capture(model, (frames[0],))
    quantized = quantize(captured, u8s8, frames)
    assert not model.past.any()
    assert not any(value.any() for value in captured.initial_state().values())
    with torch.no_grad():
        states = [model(frame) / 2 for frame in frames]
    add = next(node.outputs[0] for node in captured.graph.nodes if node.op == "add")
    _, high = quantized.qparams[add].range
    assert float(high) >= 0.99 * max(float(state.max()) for state in states)


def test_an_activation_without_elements_does_not_matter(u8s8: QuantScheme) -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.layer(x[:0]), self.layer(x)]).sin()

    x = torch.randn(3, 4)
    quantized = quantize(capture(Empty(), (x,)), u8s8, [x], bias_correction=False)
    assert torch.isfinite(quantized.run(x)).all()


def test_a_dead_network_gets_scale_one(u8s8: QuantScheme) -> None:
    x = torch.zeros(1, 3, 8, 8)
    captured = capture(two_layers(), (x,))
    assert quantize(captured, u8s8, [x]).qparams[captured.graph.inputs[0]].scale == 1.0


# --- weights ---

PER_CHANNEL = QParamsSpec(format=FORMATS["int4"], symmetric=True, granularity=Granularity.PER_CHANNEL)


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_each_channel_has_the_scale_of_its_largest_weight(axis: int) -> None:
    weight = torch.randn(4, 6, 3, 5)
    qparams = choose_weight_qparams(weight, PER_CHANNEL, axis)
    expected = weight.movedim(axis, 0).flatten(1).abs().amax(1) / 7
    torch.testing.assert_close(qparams.scale, expected)
    assert qparams.axis == axis


def test_mse_finds_the_best_scale_of_each_channel() -> None:
    weight = torch.distributions.StudentT(3.0).sample((5, 64))
    spec = QParamsSpec(format=FORMATS["int4"], symmetric=True, granularity=Granularity.PER_CHANNEL, observer="mse")
    found = (weight - fake_quantize(weight, choose_weight_qparams(weight, spec, 0))).square().sum(1)
    for row, error in zip(weight, found, strict=True):
        ends = row.abs().max() * torch.linspace(0.05, 1, 400)
        candidates = choose_qparams(-ends, ends, spec, axis=0)
        best = (row - fake_quantize(row.expand(400, -1), candidates)).square().sum(1).min()
        assert error <= best * 1.02


# --- bias correction ---


def coarse(scheme: QuantScheme) -> QuantScheme:
    """Weights of 3 bits: their mean error shows."""
    spec = QParamsSpec(format=FORMATS["int3"], symmetric=True, granularity=Granularity.PER_CHANNEL)
    return scheme.with_overrides(Override(module="*", weights=spec))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(3, 6, 3, stride=2, groups=3),
        nn.ConvTranspose2d(3, 4, 3, stride=2),
        nn.Linear(8, 5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_the_mean_of_each_channel_is_that_of_the_float_layer(layer: nn.Module, u8s8: QuantScheme) -> None:
    torch.nn.init.uniform_(layer.weight, 0, 1)
    samples = [torch.rand(1, 3, 8, 8) for _ in range(4)]
    captured = capture(nn.Sequential(layer, nn.Identity()), (samples[0],))

    def bias_error(bias_correction: bool) -> torch.Tensor:
        quantized = quantize(captured, coarse(u8s8), samples, bias_correction=bias_correction)
        # Activations in float: what is left is the weights' doing.
        results = [quantized.run(x, transform=lambda ref, tensor: tensor) - captured.run(x) for x in samples]
        error = torch.cat(results)
        return (error.mean((0, 1, 2)) if isinstance(layer, nn.Linear) else error.mean((0, 2, 3))).abs().max()

    assert bias_error(True) < 1e-3  # half a step of the int32 bias
    assert bias_error(False) > 1e-2


def test_biases_follow_all_samples_seen_while_calibrating(u8s8: QuantScheme) -> None:
    """As a run of its own over all of them finds, cut from batches or not."""
    captured, coarser = capture(two_layers(), (IMAGES[:1],)), coarse(u8s8)
    start = quantize(captured, coarser, IMAGES.split(1), bias_correction=False)
    expected = correct_biases(start, [(x,) for x in IMAGES.split(1)]).captured.values
    assert any(not torch.equal(value, start.captured.values[name]) for name, value in expected.items())
    found = quantize(captured, coarser, [IMAGES[:2], IMAGES[2:]]).captured.values
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_a_layer_without_bias_stays_as_it_is(u8s8: QuantScheme) -> None:
    x = torch.rand(2, 4)
    quantized = quantize(capture(nn.Linear(4, 4, bias=False), (x,)), u8s8, [x], bias_correction=False)
    corrected = correct_biases(quantized, [(x,)])
    assert corrected.captured.values.keys() == quantized.captured.values.keys()


def test_the_captured_network_is_left_alone(u8s8: QuantScheme) -> None:
    captured = capture(two_layers(), (IMAGES[:1],))
    before = captured.run(IMAGES[:1])
    quantize(captured, coarse(u8s8), IMAGES.split(1))
    assert torch.equal(captured.run(IMAGES[:1]), before)


# --- what is refused ---


class Unstable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x) / (x[:, :1] != 7)
        return self.second(y * 1.0)


def test_calibration_names_the_layer_the_line_and_the_batch_of_an_infinity(u8s8: QuantScheme) -> None:
    good = torch.randn(2, 4)
    bad = good.clone()
    bad[1, 0] = 7.0
    captured = capture(Unstable(), (good,))
    message = rf"calibration batch 2: the result of 'div' in 'the model' \({re.escape(str(Path(__file__)))}:\d+\)"
    with pytest.raises(InputError, match=rf"{message} contains infinity; remove the sample or mend the layer"):
        quantize(captured, u8s8, [good, good, bad])


def test_calibration_names_the_input_that_holds_nan(u8s8: QuantScheme) -> None:
    good = torch.randn(2, 4)
    captured = capture(Unstable(), (good,))
    with pytest.raises(InputError, match=r"calibration batch 0: input \$x contains NaN; remove the sample"):
        quantize(captured, u8s8, [good * torch.nan])


def test_large_values_whose_sum_overflows_are_no_infinity(u8s8: QuantScheme) -> None:
    x = torch.full((2, 4), 3e38)
    captured = capture(nn.Linear(4, 4), (x,))
    qparams = calibrate(captured, plan(captured.graph, u8s8), [x]).qparams
    assert torch.isfinite(qparams[captured.graph.inputs[0]].scale)


def test_calibration_needs_data(u8s8: QuantScheme) -> None:
    captured = capture(two_layers(), (IMAGES[:1],))
    with pytest.raises(InputError, match="calibration got no batch; give at least one"):
        quantize(captured, u8s8, [])


def test_a_batch_of_another_shape_is_refused(u8s8: QuantScheme) -> None:
    captured = capture(two_layers(), (IMAGES[:1],))
    with pytest.raises(InputError, match=r"input \$input: got float32\[1, 3, 9, 9\]; .* float32\[1, 3, 8, 8\]"):
        quantize(captured, u8s8, [torch.randn(1, 3, 9, 9)])


def test_an_unknown_observer_is_refused_before_the_data_is_read(u8s8: QuantScheme) -> None:
    spec = QParamsSpec(format=FORMATS["uint8"], symmetric=False, observer="percentil")
    captured = capture(two_layers(), (IMAGES[:1],))

    def batches() -> None:
        raise AssertionError("data was read")
        yield

    scheme = u8s8.with_overrides(Override(module="*", activations=spec))
    with pytest.raises(InputError, match=r"unknown observer 'percentil'.*did you mean 'percentile'"):
        quantize(captured, scheme, batches(), bias_correction=False)


def test_a_shared_bias_is_rounded_with_the_scale_of_each_reader(u8s8: QuantScheme) -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.head(x), self.head(y)

    x, y = torch.rand(2, 4), torch.rand(2, 4) * 1000
    quantized = quantize(capture(Head(), (x, y)), u8s8, [(x, y)])
    bias = TensorRef("", "head.bias")
    name = quantized.captured.value_refs[bias]
    first, second = (operands[name] for operands in quantized.simulated_operands.values())
    assert not torch.equal(first, second)
    for each, value in zip(quantized.plan.biases.values(), (first, second), strict=True):
        scale = quantized.bias_qparams(each).scale
        torch.testing.assert_close(value / scale, (value / scale).round())
