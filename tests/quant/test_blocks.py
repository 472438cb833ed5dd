"""Scales of blocks and scales that follow the data, against definitions written in NumPy."""

from collections.abc import Callable
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.dynamic_qparams import DynamicQParams
from bitwright.quant.fake_quantize import dequantize, fake_quantize, quantize
from bitwright.quant.formats import FORMATS
from bitwright.quant.ptq import quantize as quantize_network
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme, ScaleKind
from bitwright.quant.weights import choose_weight_qparams

# OCP Microscaling Formats 1.0, table 1 and section 5.3.4: the exponent of the largest power of two of each element.
EMAX = {"float4_e2m1fn": 2, "float6_e2m3fn": 2, "float6_e3m2fn": 4, "float8_e4m3fn": 8, "float8_e5m2": 15}


def spec_of(name: str, size: int = 32, kind: ScaleKind = ScaleKind.FLOAT32, **more: object) -> QParamsSpec:
    settings = {"symmetric": True, "granularity": Granularity.PER_BLOCK, "block_size": size, "scale_kind": kind}
    return QParamsSpec(format=FORMATS[name], **{**settings, **more})  # type: ignore[arg-type]


def wide_values(rows: int = 200, columns: int = 96) -> np.ndarray:
    """Rows of every magnitude that a shared scale can say, dead blocks among them."""
    rng = np.random.default_rng(1)
    values = rng.standard_normal((rows, columns)) * 2.0 ** rng.integers(-110, 100, (rows, 1))
    values[::17, :32] = 0.0
    return values.astype(np.float32)


def floor_log2(values: np.ndarray) -> np.ndarray:
    """From the exponent bits of normal float32 numbers."""
    return (values.view(np.uint32) >> 23 & 0xFF).astype(np.int64) - 127


@pytest.mark.parametrize("name", EMAX)
def test_mx_values_are_those_of_the_ocp_definition(name: str) -> None:
    values = wide_values()
    blocks = values.reshape(len(values), -1, 32)
    largest = np.abs(blocks).max(-1)
    exponent = np.where(largest > 0, np.clip(floor_log2(largest) - EMAX[name], -127, 127), 0)
    scale = np.ldexp(np.float32(1), exponent).astype(np.float32)[..., None]
    top = float(ml_dtypes.finfo(getattr(ml_dtypes, name)).max)
    codes = np.clip(blocks / scale, -top, top).astype(getattr(ml_dtypes, name))
    expected = (codes.astype(np.float32) * scale).reshape(values.shape)

    dynamic = DynamicQParams(spec=spec_of(name, kind=ScaleKind.E8M0, dynamic=True), axis=1)
    x = torch.from_numpy(values)
    np.testing.assert_array_equal(fake_quantize(x, dynamic.of(x)).numpy(), expected)
    # An E8M0 code exists for each scale.
    stored = scale.astype(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    np.testing.assert_array_equal(stored, scale)


def test_mxint8_has_six_bits_behind_the_point() -> None:
    values = wide_values()
    blocks = values.reshape(len(values), -1, 32).astype(np.float64)
    largest = np.abs(blocks).max(-1)
    shared = np.where(largest > 0, np.floor(np.log2(np.where(largest > 0, largest, 1))), 0)[..., None]
    elements = np.clip(np.rint(blocks / 2.0**shared * 2**6), -128, 127) / 2**6
    expected = (elements * 2.0**shared).reshape(values.shape).astype(np.float32)
    dynamic = DynamicQParams(spec=spec_of("int8", kind=ScaleKind.E8M0, dynamic=True), axis=1)
    x = torch.from_numpy(values)
    np.testing.assert_array_equal(fake_quantize(x, dynamic.of(x)).numpy(), expected)


@pytest.mark.parametrize("magnitude", [1e-3, 1.0, 300.0])
def test_nvfp4_values_are_those_of_two_levels(magnitude: float) -> None:
    rng = np.random.default_rng(2)
    values = (rng.standard_normal((64, 64)) * 2.0 ** rng.integers(-8, 3, (64, 1)) * magnitude).astype(np.float32)
    blocks = values.reshape(64, 4, 16)
    tensor_scale = np.float32(np.abs(values).max().astype(np.float64) / (448 * 6))
    relative = (np.abs(blocks).max(-1).astype(np.float64) / 6).astype(np.float32) / tensor_scale
    scale = np.clip(relative, 2.0**-9, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * tensor_scale
    codes = np.clip(blocks / scale[..., None], -6, 6).astype(ml_dtypes.float4_e2m1fn)
    expected = (codes.astype(np.float32) * scale[..., None]).reshape(values.shape)

    spec = spec_of("float4_e2m1fn", 16, ScaleKind.FLOAT8_E4M3)
    qparams = choose_weight_qparams(torch.from_numpy(values), spec, 1)
    assert qparams.tensor_scale is not None and float(qparams.tensor_scale) == tensor_scale
    np.testing.assert_array_equal(fake_quantize(torch.from_numpy(values), qparams).numpy(), expected)


@pytest.mark.parametrize("observer", ["min_max", "mse"])
@pytest.mark.parametrize(("shape", "axis"), [((6, 70), 1), ((70, 6), 0), ((5, 40, 3, 3), 1)])
def test_groups_of_four_bits_are_those_of_numpy(shape: tuple[int, ...], axis: int, observer: str) -> None:
    """With blocks that do not divide the axis: the last one is shorter."""
    weight = torch.from_numpy(np.random.default_rng(3).standard_normal(shape).astype(np.float32))
    qparams = choose_weight_qparams(weight, spec_of("int4", observer=observer), axis)
    values = fake_quantize(weight, qparams).numpy()
    moved, found = np.moveaxis(weight.numpy(), axis, -1), np.moveaxis(values, axis, -1)
    scales = np.moveaxis(qparams.scale.numpy(), axis, -1)
    for index in range(scales.shape[-1]):
        part, scale = moved[..., 32 * index : 32 * index + 32], scales[..., index, None]
        if observer == "min_max":
            np.testing.assert_array_equal(scale, np.abs(part).max(-1, keepdims=True) / np.float32(7))
        expected = np.clip(np.rint(part / scale), -8, 7) * scale
        np.testing.assert_array_equal(found[..., 32 * index : 32 * index + 32], expected)


def test_a_smaller_block_and_a_searched_range_err_less() -> None:
    weight = torch.randn(64, 256)
    weight[:, 0] *= 20

    def error(spec: QParamsSpec) -> float:
        return float((weight - fake_quantize(weight, choose_weight_qparams(weight, spec, 1))).square().sum())

    assert error(spec_of("int4", 32)) < error(spec_of("int4", 128))
    assert error(spec_of("int4", 128, observer="mse")) < error(spec_of("int4", 128))


def test_dynamic_scales_of_a_whole_tensor_are_those_of_its_extremes() -> None:
    x = torch.tensor([[-1.0, 2.0], [0.5, 3.0]])
    asymmetric = DynamicQParams(spec=QParamsSpec(format=FORMATS["uint8"], symmetric=False, dynamic=True)).of(x)
    assert float(asymmetric.scale) == np.float32(4 / 255) and float(asymmetric.zero_point) == 64
    symmetric = DynamicQParams(spec=QParamsSpec(format=FORMATS["int8"], symmetric=True, dynamic=True)).of(x)
    assert float(symmetric.scale) == np.float32(3 / 127)


def test_nan_spoils_its_own_block_only() -> None:
    x = torch.ones(2, 64)
    x[0, 40] = torch.nan
    x[1, 3] = torch.inf
    dynamic = DynamicQParams(spec=spec_of("float8_e4m3fn", kind=ScaleKind.E8M0, dynamic=True), axis=1)
    seen = fake_quantize(x, dynamic.of(x))
    assert seen[0, 32:].isnan().all() and seen[1, :32].isnan().all()
    assert torch.equal(seen[0, :32], x[0, :32]) and torch.equal(seen[1, 32:], x[1, 32:])


@given(st.sampled_from([*EMAX, "int8"]), st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=70))
def test_quantizing_twice_changes_nothing(name: str, numbers: list[float]) -> None:
    """The largest value of a block may become smaller, never so much that its exponent falls."""
    x = torch.tensor(numbers)
    qparams = DynamicQParams(spec=spec_of(name, kind=ScaleKind.E8M0, dynamic=True), axis=0).of(x)
    once = fake_quantize(x, qparams)
    assert torch.equal(fake_quantize(once, qparams), once)
    assert torch.equal(dequantize(quantize(x, qparams), qparams), once)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"granularity": Granularity.PER_BLOCK}, "block_size is needed with granularity per_block, and only there"),
        ({"block_size": 32}, "block_size is needed with granularity per_block, and only there"),
        ({"granularity": Granularity.PER_BLOCK, "block_size": 1}, "block_size = 1; at least 2 values share a scale"),
        ({"scale_kind": ScaleKind.E8M0}, "scale_kind e8m0 is for symmetric formats per_block"),
    ],
)
def test_specs_that_contradict_themselves(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        QParamsSpec(format=FORMATS["int8"], symmetric=True, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("activations", "weights", "message"),
    [
        (spec_of("int8"), spec_of("int8"), "activations per_block must be dynamic"),
        (
            QParamsSpec(format=FORMATS["int8"], symmetric=True, granularity=Granularity.PER_CHANNEL),
            spec_of("int8"),
            "activations must be per_tensor or per_block",
        ),
        (
            spec_of("int8", dynamic=True),
            spec_of("int8", dynamic=True),
            "weights are known beforehand and cannot be dynamic",
        ),
    ],
)
def test_schemes_that_no_network_can_follow(activations: QParamsSpec, weights: QParamsSpec, message: str) -> None:
    with pytest.raises(ValueError, match=f"^scheme 'x': {message}$"):
        QuantScheme(name="x", activations=activations, weights=weights, quantized_operators=frozenset({"linear"}))


def test_integers_may_have_scales_of_two_levels() -> None:
    weight = torch.randn(8, 64)
    qparams = choose_weight_qparams(weight, spec_of("int4", 16, ScaleKind.FLOAT8_E4M3), 1)
    tensor_scale = np.float32(float(weight.abs().max()) / (448 * 7))
    assert qparams.tensor_scale is not None and float(qparams.tensor_scale) == tensor_scale
    relative = weight.numpy().reshape(8, 4, 16).__abs__().max(-1) / np.float32(7) / tensor_scale
    expected = relative.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * tensor_scale
    np.testing.assert_array_equal(qparams.scale.numpy(), expected)


class Gate(nn.Module):
    """A learned number, a learned row, a mean and attention: operands of every rank."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)
        self.number, self.row = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.randn(32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x * self.number + self.row) * x.mean()
        return nn.functional.scaled_dot_product_attention(y, y + 1, y * 2)


def test_a_number_is_a_block_and_attention_sums_over_its_keys(make_scheme: Callable[..., QuantScheme]) -> None:
    spec = spec_of("float8_e4m3fn", kind=ScaleKind.E8M0)
    scheme = make_scheme("int8", "int8", activations=replace(spec, dynamic=True), weights=spec)
    scheme = replace(scheme, quantized_operators=scheme.quantized_operators | {"scaled_dot_product_attention"})
    captured = capture(Gate().eval(), (torch.randn(1, 2, 8, 32),))
    model = quantize_network(captured, scheme, [torch.randn(1, 2, 8, 32)])
    attention = next(each for each in captured.graph.nodes if each.op == "scaled_dot_product_attention")
    assert [model.dynamic[ref].axis for ref in attention.tensors] == [3, 3, 2]
    numbers = [ref for ref, each in model.dynamic.items() if captured.graph.tensors[ref].shape == ()]
    assert len(numbers) == 1 and model.dynamic[numbers[0]].axis is None
    assert model.run(torch.randn(1, 2, 8, 32)).isfinite().all()
