"""The arithmetic against NumPy, ml_dtypes, ONNX Runtime and the reference implementation of ONNX."""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from bitwright.quant.fake_quantize import dequantize, fake_quantize, quantize
from bitwright.quant.formats import FORMATS, FloatFormat, IntFormat
from bitwright.quant.qparams import QParams
from bitwright.quant.scheme import Granularity, QParamsSpec

INTEGERS = [name for name, fmt in FORMATS.items() if isinstance(fmt, IntFormat) and fmt.bits <= 16]
FP8 = {"float8_e4m3fn": ml_dtypes.float8_e4m3fn, "float8_e5m2": ml_dtypes.float8_e5m2}
Run = Callable[..., list[np.ndarray]]


def make_qparams(
    name: str, scale: float | list[float], zero_point: float | list[float] = 0.0, **settings: object
) -> QParams:
    symmetric = isinstance(FORMATS[name], FloatFormat) or not np.any(zero_point)
    spec = QParamsSpec(format=FORMATS[name], symmetric=symmetric, **settings)  # type: ignore[arg-type]
    axis = 0 if isinstance(scale, list) else None
    return QParams(spec, torch.tensor(scale), torch.tensor(zero_point), axis)


def values_with_ties(scale: float) -> np.ndarray:
    """Multiples of half a step (every tie), their float32 neighbours, a sweep, and the extremes."""
    ties = (np.arange(-700, 700) / 2).astype(np.float32) * np.float32(scale)
    sweep = np.linspace(-400, 400, 20_001, dtype=np.float32) * np.float32(scale)
    extremes = np.array([0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf], np.float32)
    return np.concatenate(
        [ties, np.nextafter(ties, np.float32(9e9)), np.nextafter(ties, -np.float32(9e9)), sweep, extremes]
    )


def reference_codes(x: np.ndarray, scale: np.ndarray, zero_point: int, low: int, high: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.clip(np.rint(x / scale) + np.float32(zero_point), low, high).astype(np.int64)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("scale", [1.0, 0.1, 0.0173, 2.0**-20, 3e-9])
@pytest.mark.parametrize("narrow", [False, True])
def test_integer_codes_are_those_of_numpy(name: str, scale: float, narrow: bool) -> None:
    fmt = FORMATS[name]
    assert isinstance(fmt, IntFormat)
    x = values_with_ties(scale)
    for zero_point in {0, fmt.code_min + 1, fmt.code_max // 2}:
        qparams = make_qparams(name, scale, zero_point, narrow_range=narrow)
        low, high = qparams.spec.code_range
        expected = reference_codes(x, np.float32(scale), zero_point, low, high)
        codes = quantize(torch.from_numpy(x), qparams)
        assert codes.dtype == torch.int32
        np.testing.assert_array_equal(codes.numpy(), expected)
        assert torch.equal(fake_quantize(torch.from_numpy(x), qparams), dequantize(codes, qparams))


def quantize_file(qparams: QParams, zero_point: np.ndarray, shape: list[int]) -> onnx.ModelProto:
    """One QuantizeLinear and one DequantizeLinear; opset 21 has every format."""
    dtype = helper.np_dtype_to_tensor_dtype(zero_point.dtype)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["codes"], axis=0),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero_point"], ["y"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "quantize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("codes", dtype, shape),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, shape),
        ],
        [
            numpy_helper.from_array(qparams.scale.numpy(), "scale"),
            numpy_helper.from_array(zero_point, "zero_point"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize("scale", [1.0, 0.1, 0.0173])
def test_integer_codes_are_those_of_onnx_runtime(name: str, scale: float, run_onnx: Run) -> None:
    fmt = FORMATS[name]
    assert isinstance(fmt, IntFormat)
    # Beyond 2^31 ONNX Runtime converts before it clamps, so the extremes stay finite here.
    x = np.clip(values_with_ties(scale), -1e6, 1e6)
    qparams = make_qparams(name, scale, fmt.code_min + 3)
    zero_point = np.array(fmt.code_min + 3, name)
    _, dequantized = run_onnx(quantize_file(qparams, zero_point, [len(x)]), {"x": x})
    codes = quantize(torch.from_numpy(x), qparams)
    np.testing.assert_array_equal(dequantize(codes, qparams).numpy(), dequantized)


def test_per_channel_codes_are_those_of_onnx_runtime(run_onnx: Run) -> None:
    qparams = make_qparams("int8", [0.5, 0.01, 3.0], [0.0, 0.0, 0.0], granularity=Granularity.PER_CHANNEL)
    x = torch.randn(3, 1000) * 4
    codes, dequantized = run_onnx(quantize_file(qparams, np.zeros(3, np.int8), [3, 1000]), {"x": x.numpy()})
    np.testing.assert_array_equal(quantize(x, qparams).numpy(), codes)
    np.testing.assert_array_equal(fake_quantize(x, qparams).numpy(), dequantized)


def test_int32_codes_saturate_instead_of_wrapping() -> None:
    qparams = make_qparams("int32", 1e-6)
    codes = quantize(torch.tensor([1e9, -1e9, 1.5, torch.inf]), qparams)
    assert codes.tolist() == [2**31 - 1, -(2**31), 1_500_000, 2**31 - 1]


def test_large_int32_codes_keep_every_bit() -> None:
    qparams = make_qparams("int32", 0.5)
    x = torch.tensor([2.0**25 + 4, 8_388_609.0])
    assert quantize(x, qparams).tolist() == [2**26 + 8, 16_777_218]
    assert torch.equal(fake_quantize(x, qparams), x)


def test_integer_codes_of_nan_and_infinity() -> None:
    qparams = make_qparams("uint8", 0.1, 7.0)
    assert quantize(torch.tensor([torch.nan, torch.inf, -torch.inf]), qparams).tolist() == [7, 255, 0]
    # In the simulation NaN stays visible.
    assert fake_quantize(torch.tensor([torch.nan]), qparams).isnan().all()


# --- float8 ---


def every_kind_of_float(fmt: FloatFormat) -> np.ndarray:
    """Over 10^6 values: random bit patterns near the format's range, all its values, all ties and their neighbours."""
    rng = np.random.default_rng(0)
    grid = np.arange(256, dtype=np.uint8).view(FP8[fmt.name]).astype(np.float32)
    grid = np.sort(grid[np.isfinite(grid)])
    ties = ((grid[1:].astype(np.float64) + grid[:-1]) / 2).astype(np.float32)
    edges = np.concatenate([grid, ties])
    neighbours = [np.nextafter(edges, np.float32(s * np.inf)) for s in (1, -1)]
    exponents = rng.integers(127 - 26, 127 + 20, 1_200_000, dtype=np.uint32)
    patterns = (rng.integers(0, 2, len(exponents), dtype=np.uint32) << 31) | (exponents << 23)
    random = (patterns | rng.integers(0, 1 << 23, len(exponents), dtype=np.uint32)).view(np.float32)
    beyond = np.float32(fmt.max_value) * np.array([1.0, 1.03, 1.0625, 1.07, 2, 1e30, -1.03, -1e30], np.float32)
    return np.concatenate([edges, *neighbours, random, beyond, np.array([0.0, -0.0, 1e-45], np.float32)])


def fp8_codes(x: np.ndarray, scale: float, name: str) -> np.ndarray:
    """The definition: divide in float32, clamp to the largest value, round to nearest even."""
    largest = np.float32(float(ml_dtypes.finfo(FP8[name]).max))
    with np.errstate(over="ignore"):
        return np.clip(x / np.float32(scale), -largest, largest).astype(FP8[name])


@pytest.mark.parametrize("name", FP8)
@pytest.mark.parametrize("scale", [1.0, 0.0173, 3.7])
def test_fp8_codes_are_those_of_ml_dtypes_bit_by_bit(name: str, scale: float) -> None:
    fmt = FORMATS[name]
    assert isinstance(fmt, FloatFormat)
    x = every_kind_of_float(fmt) * np.float32(scale)
    assert len(x) > 10**6
    codes = quantize(torch.from_numpy(x), make_qparams(name, scale))
    expected = fp8_codes(x, scale, name)
    np.testing.assert_array_equal(codes.view(torch.uint8).numpy(), expected.view(np.uint8))
    back = dequantize(codes, make_qparams(name, scale)).numpy()
    np.testing.assert_array_equal(back, expected.astype(np.float32) * np.float32(scale))


@pytest.mark.parametrize("name", FP8)
def test_fp8_saturates_and_keeps_nan(name: str) -> None:
    largest = FORMATS[name].max_value  # type: ignore[union-attr]
    qparams = make_qparams(name, 2.0)
    x = torch.tensor([torch.inf, -torch.inf, 2.2 * largest, torch.nan])
    values = fake_quantize(x, qparams)
    assert values[:3].tolist() == [2 * largest, -2 * largest, 2 * largest]
    assert values[3].isnan()


def test_fp8_is_not_rounded_to_an_integer_first() -> None:
    """What pt2e does: everything below half a step of an integer vanishes."""
    x = torch.randn(100_000) * torch.logspace(-3, 2, 100_000)
    values = fake_quantize(x, make_qparams("float8_e4m3fn", 1.0))
    assert torch.equal(values == 0, x.abs() <= 2.0**-10)  # half of the smallest subnormal, the tie rounds to even
    assert ((x.abs() < 0.5) & (values != 0)).float().mean() > 0.3
    relative = ((values - x).abs() / x.abs())[x.abs() > 2**-6]
    assert relative.max() <= 2**-4  # half a unit in the last of 3 mantissa bits


@pytest.mark.parametrize("name", FP8)
@pytest.mark.parametrize("scale", [1.0, 0.0173])
def test_fp8_codes_are_those_of_onnx(name: str, scale: float, run_onnx: Run) -> None:
    fmt = FORMATS[name]
    assert isinstance(fmt, FloatFormat)
    x = every_kind_of_float(fmt)[::50] * np.float32(scale)
    x = np.concatenate([x, np.array([np.nan], np.float32)])
    model = quantize_file(make_qparams(name, scale), np.zeros((), FP8[name]), [len(x)])
    ours = fake_quantize(torch.from_numpy(x), make_qparams(name, scale)).numpy()
    np.testing.assert_array_equal(run_onnx(model, {"x": x}, ["y"])[0], ours)
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(["y"], {"x": x})[0], ours)


# --- properties ---

scales = st.floats(2.0**-40, 2.0**20, width=32)
numbers = st.floats(-1e6, 1e6, width=32)
formats = st.sampled_from([*INTEGERS, *FP8])


@st.composite
def some_qparams(draw: st.DrawFn) -> QParams:
    fmt = FORMATS[draw(formats)]
    zero_point = draw(st.integers(fmt.code_min, fmt.code_max)) if isinstance(fmt, IntFormat) else 0
    return make_qparams(fmt.name, draw(scales), float(zero_point))


@given(some_qparams(), st.floats(0, 1))
def test_round_trip_error_is_at_most_half_a_step_inside_the_range(qparams: QParams, where: float) -> None:
    if isinstance(qparams.spec.format, FloatFormat):
        return
    low, high = (float(bound) for bound in qparams.range)
    x = torch.tensor(low + (high - low) * where)
    step = float(qparams.scale)
    # x / s is itself rounded once, which can turn a near-tie over.
    rounding = abs(float(x)) * 2.0**-23
    assert abs(float(fake_quantize(x, qparams) - x)) <= step / 2 + rounding


@given(some_qparams(), st.lists(numbers, min_size=2, max_size=20))
def test_fake_quantize_is_monotonic(qparams: QParams, xs: list[float]) -> None:
    values = fake_quantize(torch.tensor(sorted(xs)), qparams)
    assert (values.diff() >= 0).all()


@given(some_qparams(), st.lists(numbers, min_size=1, max_size=20), st.integers(-10, 10))
def test_fake_quantize_is_invariant_to_powers_of_two(qparams: QParams, xs: list[float], power: int) -> None:
    x, factor = torch.tensor(xs), 2.0**power
    x = torch.where(x.abs() < 2.0**-60, torch.zeros(()), x)  # the quotient stays a normal number
    scaled = QParams(qparams.spec, qparams.scale * factor, qparams.zero_point, qparams.axis)
    assert torch.equal(fake_quantize(x * factor, scaled), fake_quantize(x, qparams) * factor)


@given(some_qparams())
def test_zero_is_exact(qparams: QParams) -> None:
    assert fake_quantize(torch.zeros(3), qparams).tolist() == [0.0, 0.0, 0.0]


@given(some_qparams(), st.lists(numbers, min_size=1, max_size=20))
def test_quantizing_twice_changes_nothing(qparams: QParams, xs: list[float]) -> None:
    once = fake_quantize(torch.tensor(xs), qparams)
    assert torch.equal(fake_quantize(once, qparams), once)
