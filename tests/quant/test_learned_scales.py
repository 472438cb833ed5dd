"""Each method's gradients against its paper, element by element in float64, and what must hold for any input."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bitwright.qat.methods import Method
from bitwright.qat.quantizer import DynamicQuantizer, Quantizer
from bitwright.quant.dynamic_qparams import DynamicQParams
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.formats import get_format
from bitwright.quant.learned_steps import Grid, round_activation, rounded_again
from bitwright.quant.qparams import QParams, choose_qparams
from bitwright.quant.scheme import Granularity, QParamsSpec, ScaleKind

UINT8 = QParamsSpec(format=get_format("uint8"), symmetric=False)
INT4 = QParamsSpec(format=get_format("int4"), symmetric=True)


def tensors(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and what comes down to them, as one sample of 77."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 7, 11, generator=generator) * 2, torch.randn(1, 7, 11, generator=generator)


def clipped(spec: QParamsSpec, x: torch.Tensor, share: float = 0.6) -> QParams:
    return choose_qparams(x.min() * share, x.max() * share, spec)


def trained(qparams: QParams, method: Method, x: torch.Tensor, above: torch.Tensor) -> tuple[Quantizer, torch.Tensor]:
    """The quantizer with its gradients, and that of the values."""
    quantizer = Quantizer(qparams, method=method)
    values = x.clone().requires_grad_()
    quantizer(values).backward(above)
    assert values.grad is not None
    return quantizer, values.grad


def gradient(parameter: torch.Tensor | None) -> float:
    assert parameter is not None and parameter.grad is not None and parameter.grad.shape == (1,)
    return float(parameter.grad)


def test_pact_feels_its_threshold_where_values_pass_it_and_nowhere_else() -> None:
    """Choi et al. 2018, equation 3: d y / d alpha = 0 below alpha, 1 from alpha on."""
    x, above = tensors()
    spec = QParamsSpec(format=get_format("uint8"), symmetric=True)
    qparams = QParams(spec, torch.tensor(2.0 / 255), torch.tensor(0.0))  # alpha = 2
    quantizer, by_x = trained(qparams, Method.PACT, x, above)
    v, g = x.double().numpy(), above.double().numpy()
    by_alpha = g[v >= 2.0].sum()
    # The parameter is the logarithm of alpha, and a step on it moves alpha by the paper's share: gradient / alpha.
    assert gradient(quantizer.log_ratio) == pytest.approx(by_alpha / 2.0, rel=1e-4)
    np.testing.assert_array_equal(by_x.numpy(), np.where((v > 0) & (v < 2.0), g, 0).astype(np.float32))


def test_trained_thresholds_have_the_papers_gradient() -> None:
    """Jain et al. 2020, equation 7: s ln 2 * (round(x/s) - x/s inside, n below, p above) by log2 t."""
    x, above = tensors(1)
    spec = QParamsSpec(format=get_format("int4"), symmetric=True, scale_kind=ScaleKind.POWER_OF_TWO)
    qparams = clipped(spec, x, 0.4)
    quantizer, _ = trained(qparams, Method.TQT, x, above)
    s = float(qparams.scale)
    assert np.log2(s).is_integer()
    v, g = x.double().numpy() / s, above.double().numpy()
    inside = (v > -8) & (v < 7)
    by_log2 = s * np.log(2) * (g * np.where(inside, np.round(v) - v, np.clip(v, -8, 7))).sum()
    assert gradient(quantizer.log_ratio) * np.log(2) == pytest.approx(by_log2, rel=1e-4)


def test_the_offset_of_lsq_plus_has_the_papers_gradients() -> None:
    """Bhalgat et al. 2020, section 3.1: with `v = (x - beta) / s`, codes n to p.

    d/ds = round(v) - v inside, n or p outside; d/dbeta = 0 inside, 1 outside.
    """
    x, above = tensors(2)
    qparams = clipped(UINT8, x, 0.5)
    quantizer, by_x = trained(qparams, Method.LSQ_PLUS, x, above)
    s, z = float(qparams.scale), float(qparams.zero_point)
    v, g = x.double().numpy() / s + z, above.double().numpy()
    inside = (v > 0) & (v < 255)
    assert 0 < inside.sum() < inside.size
    by_scale = (g * np.where(inside, np.round(v) - v, np.clip(v, 0, 255))).sum()
    by_offset = g[~inside].sum()
    scaled = 1 / np.sqrt(77 * 255) / s  # LSQ's gradient scale; both parameters count in units of the scale
    assert gradient(quantizer.log_ratio) == pytest.approx(by_scale * scaled, rel=2e-3)
    assert gradient(quantizer.shift) == pytest.approx(by_offset * scaled, rel=1e-4)
    np.testing.assert_array_equal(by_x.numpy(), np.where(inside, g, 0).astype(np.float32))


def test_an_offset_that_moved_is_a_whole_zero_point_in_training_and_after() -> None:
    x, _ = tensors(3)
    quantizer = Quantizer(clipped(UINT8, x), method=Method.LSQ_PLUS)
    assert quantizer.shift is not None
    quantizer.shift.data.fill_(3.4)
    quantizer.log_ratio.data.fill_(0.2)
    found = quantizer.qparams()
    assert float(found.zero_point) == float(found.zero_point.round())
    assert torch.equal(quantizer(x), fake_quantize(x, found))
    first = float(quantizer.zero_point)
    assert float(found.zero_point) == np.round((first - 3.4) / np.exp(0.2))


def test_a_linear_scale_moves_as_published() -> None:
    """Esser et al. 2020: plain descent moves s by -lr * g * dL/ds."""
    x, above = tensors(4)
    qparams = clipped(INT4, x)
    quantizer, _ = trained(qparams, Method.LSQ_LINEAR, x, above)
    scale = qparams.scale.clone().requires_grad_()
    round_activation(x, scale, Grid.of(qparams)).backward(above)
    before = quantizer.qparams().scale
    torch.optim.SGD([quantizer.log_ratio], lr=1e-3).step()
    assert scale.grad is not None
    moved = float(quantizer.qparams().scale - before)
    assert moved == pytest.approx(-1e-3 * float(scale.grad) / np.sqrt(77 * 7), rel=1e-3)


@given(
    st.sampled_from([Method.LSQ, Method.LSQ_LINEAR, Method.LSQ_PLUS, Method.PACT, Method.TQT]),
    st.integers(0, 2**31),
    st.floats(-30, 30),
    st.floats(-600, 600),
)
@settings(max_examples=80, deadline=None)
def test_whatever_an_optimizer_writes_scales_stay_positive_and_codes_those_of_the_simulation(
    method: Method, seed: int, ratio: float, shift: float
) -> None:
    x, above = tensors(seed)
    kind = ScaleKind.POWER_OF_TWO if method is Method.TQT else ScaleKind.FLOAT32
    spec = QParamsSpec(format=get_format("uint8"), symmetric=False, scale_kind=kind)
    quantizer = Quantizer(clipped(spec, x), method=method)
    quantizer.log_ratio.data.fill_(ratio)
    if quantizer.shift is not None:
        quantizer.shift.data.fill_(shift)
    found = quantizer.qparams()
    assert float(found.scale) > 0 and 0 <= float(found.zero_point) <= 255
    values = x.clone().requires_grad_()
    rounded = quantizer(values)
    assert torch.equal(rounded, fake_quantize(x, found))
    rounded.backward(above)
    low, high = found.range
    assert values.grad is not None
    outside = (x < low) | (x > high)
    assert not values.grad[outside].any()
    assert torch.equal(values.grad[~outside & (x > low) & (x < high)], above[~outside & (x > low) & (x < high)])


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"])
def test_steps_of_float_formats_learn_by_the_same_formula(name: str) -> None:
    """With ml_dtypes' rounding in place of the integers'."""
    import ml_dtypes

    x, above = tensors(5)
    spec = QParamsSpec(format=get_format(name), symmetric=True)
    qparams = clipped(spec, x, 0.5)
    largest = float(ml_dtypes.finfo(name).max)
    quantizer, by_x = trained(qparams, Method.LSQ, x, above)
    v, g = (x / qparams.scale).numpy(), above.double().numpy()
    codes = np.clip(v, -largest, largest).astype(name).astype(np.float64)
    inside = np.abs(v) < largest
    by_scale = (g * np.where(inside, codes - v, codes)).sum()
    assert gradient(quantizer.log_ratio) == pytest.approx(
        by_scale / np.sqrt(77 * largest) / float(qparams.scale), rel=1e-4
    )
    np.testing.assert_array_equal(by_x.numpy(), np.where(inside, g, 0).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "size", "kind"),
    [("uint8", None, ScaleKind.FLOAT32), ("int8", 4, ScaleKind.FLOAT32), ("float8_e4m3fn", 4, ScaleKind.E8M0)],
)
def test_dynamic_activations_train_as_they_are_simulated(name: str, size: int | None, kind: ScaleKind) -> None:
    spec = QParamsSpec(
        format=get_format(name),
        symmetric=name != "uint8",
        granularity=Granularity.PER_TENSOR if size is None else Granularity.PER_BLOCK,
        block_size=size,
        scale_kind=kind,
        dynamic=True,
    )
    rule = DynamicQParams(spec=spec, axis=None if size is None else 2)
    x, above = tensors(6)
    values = x.clone().requires_grad_()
    rounded = DynamicQuantizer(rule)(values)
    assert torch.equal(rounded, fake_quantize(x, rule.of(x)))
    rounded.backward(above)
    assert values.grad is not None
    if kind is not ScaleKind.E8M0:
        assert torch.equal(values.grad, above)  # nothing is clipped
        return
    # MX rounds its scale down, so that up to an eighth of the largest exponent's values are clipped.
    blocks = np.pad(x.numpy(), ((0, 0), (0, 0), (0, 1))).reshape(1, 7, 3, 4)
    scale = 2.0 ** (np.floor(np.log2(np.abs(blocks).max(-1, keepdims=True))) - 8)
    inside = (np.abs(blocks) <= 448 * scale).reshape(1, 7, 12)[:, :, :11]
    assert 0 < (~inside).sum() < 10
    np.testing.assert_array_equal(values.grad.numpy(), np.where(inside, above.numpy(), 0))


@pytest.mark.parametrize("learned", [True, False], ids=["learned", "fixed"])
def test_a_layer_that_rounds_its_input_again_has_the_same_gradients_and_keeps_one_tensor_less(learned: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 9, 9)
    qparams = clipped(UINT8, x)
    kept: list[int] = []

    def gradients(module: nn.Conv2d, *, again: bool) -> list[torch.Tensor]:
        scale = qparams.scale.clone().requires_grad_(learned)
        start = x.clone().requires_grad_()
        rounded = round_activation(start.relu(), scale, Grid.of(qparams))
        if again:
            with rounded_again(rounded):
                result = module(rounded)
        else:
            result = module(rounded)
        saved = result.grad_fn._raw_saved_input
        kept.append(int(isinstance(getattr(saved, "data", None), torch.Tensor)))
        del rounded
        result.square().sum().backward()
        found = [start.grad, module.weight.grad, scale.grad if learned else start.grad]
        return [each for each in found if each is not None]

    plain = gradients(copy.deepcopy(layer), again=False)
    spared = gradients(copy.deepcopy(layer), again=True)
    assert len(plain) == 3 and all(torch.equal(a, b) for a, b in zip(plain, spared, strict=True))
    assert kept == [1, 0]


def test_what_decides_already_what_is_kept_is_left_alone() -> None:
    x = torch.randn(2, 3, 5, 5).relu().requires_grad_()
    qparams = clipped(UINT8, x.detach())
    rounded = round_activation(x.relu(), qparams.scale, Grid.of(qparams))
    seen: list[torch.Size] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept), rounded_again(rounded):
        nn.Conv2d(3, 2, 3)(rounded)
    assert rounded.shape in seen


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 4, 8, 8)], ids=str)
def test_behind_a_layer_a_clipped_gradient_keeps_bits(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape).to(memory_format=layout).requires_grad_()
    convolved = nn.functional.conv2d(x, torch.eye(shape[1])[:, :, None, None])
    qparams = clipped(UINT8, convolved.detach())
    rounded = round_activation(convolved, qparams.scale, Grid.of(qparams))
    kept = rounded.grad_fn.saved_tensors[0]  # type: ignore[union-attr]
    assert kept.dtype is torch.uint8 and kept.numel() == -(-x.numel() // 8)
    above = torch.randn(shape)
    rounded.backward(above)
    low, high = qparams.range
    inside = (convolved > low) & (convolved < high)
    assert x.grad is not None and 0 < int(inside.sum()) < x.numel()
    torch.testing.assert_close(x.grad, above * inside)
