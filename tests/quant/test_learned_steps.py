import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.qat.methods import Method
from bitwright.qat.quantizer import Quantizer
from bitwright.quant.fake_quantize import cast_to_format, fake_quantize
from bitwright.quant.formats import FORMATS, FloatFormat, get_format
from bitwright.quant.learned_scales import learned_scale
from bitwright.quant.learned_steps import Grid, round_activation, round_weight
from bitwright.quant.qparams import QParams, choose_qparams
from bitwright.quant.scheme import QParamsSpec, ScaleKind

FORMAT_NAMES = ["int4", "uint4", "int8", "uint8", "int16", "float8_e4m3fn", "float8_e5m2"]


def qparams_of(name: str, values: torch.Tensor, *, clip: float = 0.6) -> QParams:
    """A range that clips some of the values."""
    spec = QParamsSpec(format=get_format(name), symmetric=not name.startswith("uint"))
    return choose_qparams(values.min() * clip, values.max() * clip, spec)


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("shape", [(7,), (3, 5, 9, 11), (2, 3, 300, 300)], ids=str)
def test_forward_is_bit_for_bit_that_of_fake_quantize(name: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
    qparams = qparams_of(name, x)
    result = round_activation(x.requires_grad_(), qparams.scale, Grid.of(qparams))
    assert torch.equal(result, fake_quantize(x.detach(), qparams))
    weight = round_weight(x, qparams.scale, qparams.scale, Grid.of(qparams))
    assert torch.equal(weight, result)


@given(st.integers(0, 2**31), st.floats(1e-6, 1e4))
@settings(max_examples=50, deadline=None)
def test_ties_round_as_the_division_does(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    halves = torch.randint(-300, 300, (257,), generator=generator).float() / 2
    spec = QParamsSpec(format=FORMATS["int8"], symmetric=True)
    qparams = QParams(spec, torch.tensor(scale), torch.tensor(0.0))
    x = halves * qparams.scale
    assert torch.equal(round_activation(x, qparams.scale, Grid.of(qparams)), fake_quantize(x, qparams))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layout_is_kept_and_a_gradient_of_another_one_is_read_right(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 5, 4, generator=generator).to(memory_format=layout).requires_grad_()
    qparams = qparams_of("int8", x.detach())
    above = torch.randn(2, 4, 5, 6, generator=generator).permute(0, 3, 2, 1)
    result = round_activation(x, qparams.scale, Grid.of(qparams))
    result.backward(above)
    scaled = x.detach() / qparams.scale
    inside = (scaled > -128) & (scaled < 127)
    assert 0 < int(inside.sum()) < inside.numel()
    assert result.is_contiguous(memory_format=layout)
    assert x.grad is not None and torch.equal(x.grad, above * inside)


def test_a_sliced_tensor_is_read_by_its_strides() -> None:
    whole = torch.randn(4, 6, 5)
    qparams = qparams_of("int8", whole)
    sliced = whole[:, ::2]
    assert torch.equal(round_activation(sliced, qparams.scale, Grid.of(qparams)), fake_quantize(sliced, qparams))


def lsq_gradients(x: np.ndarray, scale: float, above: np.ndarray, low: float, high: float) -> tuple[np.ndarray, float]:
    """Esser et al. 2020, equations 3 and 5, in float64, element by element."""
    by_x, by_scale = np.zeros_like(x), 0.0
    for index, value in np.ndenumerate(x):
        v = value / scale
        if v <= low:
            by_scale += above[index] * low
        elif v >= high:
            by_scale += above[index] * high
        else:
            by_x[index] = above[index]
            by_scale += above[index] * (np.round(v) - v)
    return by_x, by_scale


@pytest.mark.parametrize("name", ["int4", "uint8", "int8"])
def test_gradients_are_those_of_the_paper(name: str) -> None:
    x = torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(3)) * 2
    above = torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(4))
    qparams = qparams_of(name, x)
    grid = Grid.of(qparams)
    by_x, by_scale = lsq_gradients(
        x.double().numpy(), float(qparams.scale), above.double().numpy(), grid.low, grid.high
    )
    for rounding in (
        lambda value, scale: round_activation(value, scale, grid),
        lambda value, scale: round_weight(value, scale, scale, grid),
    ):
        value, scale = x.clone().requires_grad_(), qparams.scale.clone().requires_grad_()
        rounding(value, scale).backward(above)
        assert value.grad is not None and scale.grad is not None
        np.testing.assert_array_equal(value.grad.numpy(), by_x.astype(np.float32))
        np.testing.assert_allclose(float(scale.grad), by_scale, rtol=1e-5)


def test_the_scales_gradient_is_the_slope_where_nothing_is_rounded_away() -> None:
    """Clipped values follow the scale exactly, so there the formula is the true derivative: finite differences."""
    x = torch.tensor([40.0, -40.0, 55.0], dtype=torch.float32)
    spec = QParamsSpec(format=FORMATS["int4"], symmetric=True)
    scale = torch.tensor(2.0, requires_grad=True)
    grid = Grid.of(QParams(spec, scale.detach(), torch.tensor(0.0)))
    weights = torch.tensor([1.0, 2.0, -0.5])
    (round_activation(x, scale, grid) * weights).sum().backward()

    def loss(value: float) -> float:
        qparams = QParams(spec, torch.tensor(value), torch.tensor(0.0))
        return float((fake_quantize(x, qparams) * weights).sum())

    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx((loss(2.25) - loss(1.75)) / 0.5)


def test_multiplier_and_divisor_have_the_slopes_of_their_surrogate() -> None:
    """Against autograd on `multiplier * (v + stop_gradient(round(v) - v))`, clamped."""
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(4, 3, 3, generator=generator, dtype=torch.float32)
    divisor = torch.rand(4, 1, 1, generator=generator) * 0.2 + 0.1
    divisor[1] *= -1
    multiplier = torch.rand(4, 1, 1, generator=generator) + 0.5
    above = torch.randn(4, 3, 3, generator=generator)
    ours = [t.clone().requires_grad_() for t in (weight, divisor, multiplier)]
    theirs = [t.clone().double().requires_grad_() for t in (weight, divisor, multiplier)]
    round_weight(*ours, Grid(-8.0, 7.0)).backward(above)
    v = theirs[0] / theirs[1]
    (theirs[2] * (v + (v.round() - v).detach()).where((v > -8) & (v < 7), v.detach().round().clamp(-8, 7))).backward(
        above.double()
    )
    for own, other in zip(ours, theirs, strict=True):
        assert own.grad is not None and other.grad is not None
        torch.testing.assert_close(own.grad.double(), other.grad, rtol=1e-5, atol=1e-6)


def test_a_step_of_descent_moves_the_scale_by_the_papers_share() -> None:
    start, by_scale, rate, gradient_scale = torch.tensor(0.05), 3.0, 1e-4, 0.02
    log_ratio = torch.zeros((), requires_grad=True)
    scale = learned_scale(log_ratio, start, rate=gradient_scale / start.square())
    assert torch.equal(scale, start)
    scale.backward(torch.tensor(by_scale))
    assert log_ratio.grad is not None
    moved = start * torch.exp(-rate * log_ratio.grad)
    assert float((moved - start) / start) == pytest.approx(-rate * gradient_scale * by_scale / 0.05, rel=1e-3)


@pytest.mark.parametrize(("name", "code"), [("int4", 7), ("uint8", 255), ("float8_e4m3fn", 448)])
def test_gradient_scale_counts_the_elements_of_one_sample(name: str, code: float) -> None:
    x = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    qparams = qparams_of(name, x)
    quantizer = Quantizer(qparams, method=Method.LSQ)
    quantizer(x).backward(torch.ones_like(x))
    scale = qparams.scale.clone().requires_grad_()
    round_activation(x, scale, Grid.of(qparams)).backward(torch.ones_like(x))
    assert quantizer.log_ratio.grad is not None and scale.grad is not None
    expected = scale.grad / qparams.scale / np.sqrt(20 * code)
    torch.testing.assert_close(quantizer.log_ratio.grad, expected.reshape(1))


def test_a_power_of_two_stays_one_and_still_learns() -> None:
    spec = QParamsSpec(format=FORMATS["int8"], symmetric=True, scale_kind=ScaleKind.POWER_OF_TWO)
    quantizer = Quantizer(choose_qparams(torch.tensor(-3.0), torch.tensor(3.0), spec), method=Method.LSQ)
    before = quantizer.qparams().scale
    quantizer.log_ratio.data.fill_(0.3)
    after = quantizer.qparams().scale
    assert float(torch.log2(before)).is_integer() and float(after) == 2 * float(before)
    quantizer(torch.randn(4, 4)).sum().backward()
    assert quantizer.log_ratio.grad is not None and float(quantizer.log_ratio.grad) != 0.0


def test_low_precision_inputs_are_rounded_in_float32() -> None:
    x = torch.randn(64).bfloat16()
    qparams = qparams_of("int8", x.float())
    result = Quantizer(qparams, method=Method.LSQ)(x)
    assert result.dtype is torch.bfloat16
    assert torch.equal(result, fake_quantize(x.float(), qparams).bfloat16())


def test_zero_points_by_channel_are_refused() -> None:
    spec = QParamsSpec(format=FORMATS["uint8"], symmetric=False)
    with pytest.raises(ValueError, match=r"channels with zero points of their own cannot be trained"):
        Grid.of(QParams(spec, torch.ones(2), torch.tensor([3.0, 4.0]), 0))


def test_a_range_that_does_not_learn_follows_its_batches_until_it_is_frozen() -> None:
    x = torch.linspace(-1, 1, 64)
    quantizer = Quantizer(qparams_of("uint8", x, clip=1.0), method=Method.RANGES)
    before = quantizer.qparams().scale
    quantizer(x * 3)
    assert quantizer.seen is not None
    quantizer.observe(quantizer.seen)  # once a step
    widened = quantizer.qparams().scale
    assert float(widened) == pytest.approx(float(before) * 1.02, rel=1e-4)  # 1 % of the way to three times the range
    quantizer.observing = False
    quantizer(x * 9)
    assert torch.equal(quantizer.qparams().scale, widened)
    assert not quantizer.log_ratio.requires_grad


@pytest.mark.parametrize("fmt", [each for each in FORMATS.values() if isinstance(each, FloatFormat)])
def test_every_float_format_has_a_grid(fmt: FloatFormat) -> None:
    grid = Grid.of(QParams(QParamsSpec(format=fmt, symmetric=True), torch.tensor(1.0), torch.tensor(0.0)))
    x = torch.randn(1000) * 10
    assert torch.equal(grid.nearest_(x.clone()), cast_to_format(x, fmt).float())
