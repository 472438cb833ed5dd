"""Every float format against `ml_dtypes`, and tf32, which it lacks, against the bits of float32."""

import ml_dtypes
import numpy as np
import pytest
import torch

from bitwright.quant.fake_quantize import cast_to_format
from bitwright.quant.formats import FORMATS, FloatFormat

FLOATS = [fmt for fmt in FORMATS.values() if isinstance(fmt, FloatFormat)]
KNOWN = [fmt for fmt in FLOATS if fmt.name not in ("tf32", "float32")]


def dtype_of(fmt: FloatFormat) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, fmt.name, fmt.name))


def every_kind_of_value(fmt: FloatFormat) -> np.ndarray:
    """Values around the format's whole range, their copies cut off at a tie or a representable value, neighbours."""
    rng = np.random.default_rng(0)
    low = max(1, 127 + fmt.min_exponent - fmt.mantissa_bits - 3)
    exponents = rng.integers(low, min(254, 127 + fmt.max_exponent + 3), 100_000, dtype=np.uint32)
    bits = rng.integers(0, 2**32, len(exponents), dtype=np.uint32) & np.uint32(0x807FFFFF) | exponents << np.uint32(23)
    tie = bits & np.uint32((0xFFFFFFFF << max(0, 22 - fmt.mantissa_bits)) & 0xFFFFFFFF)
    edges = np.array([0.0, -0.0, 1e-45, -1e-45, fmt.max_value, -fmt.max_value, np.inf, -np.inf, 3e38], np.float32)
    return np.concatenate([(each).view(np.float32) for each in (bits, tie, tie + 1, tie - 1)] + [edges])


@pytest.mark.parametrize("fmt", FLOATS, ids=lambda fmt: fmt.name)
def test_the_figures_of_a_format_follow_from_its_bits(fmt: FloatFormat) -> None:
    assert fmt.bits == 1 + fmt.exponent_bits + fmt.mantissa_bits
    if fmt.name != "tf32":
        info = ml_dtypes.finfo(dtype_of(fmt))
        assert (fmt.max_value, 2.0**fmt.min_exponent, fmt.mantissa_bits) == (
            float(info.max),
            float(info.smallest_normal),
            info.nmant,
        )
    assert 2.0**fmt.max_exponent <= fmt.max_value < 2.0 ** (fmt.max_exponent + 1)


@pytest.mark.parametrize("fmt", KNOWN, ids=lambda fmt: fmt.name)
def test_values_are_those_of_ml_dtypes(fmt: FloatFormat) -> None:
    values = every_kind_of_value(fmt)
    expected = np.clip(values, -fmt.max_value, fmt.max_value).astype(dtype_of(fmt)).astype(np.float32)
    np.testing.assert_array_equal(cast_to_format(torch.from_numpy(values), fmt).float().numpy(), expected)


def test_tf32_rounds_float32_to_ten_bits_of_mantissa() -> None:
    fmt = FORMATS["tf32"]
    assert isinstance(fmt, FloatFormat)
    values = every_kind_of_value(fmt)
    bits = np.clip(values, -fmt.max_value, fmt.max_value).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0xFFF + (bits >> np.uint64(13) & np.uint64(1))) & np.uint64(0xFFFFE000)
    expected = rounded.astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(cast_to_format(torch.from_numpy(values), fmt).numpy(), expected)


@pytest.mark.parametrize("fmt", FLOATS, ids=lambda fmt: fmt.name)
def test_nan_stays_visible(fmt: FloatFormat) -> None:
    assert cast_to_format(torch.tensor([torch.nan]), fmt).float().isnan().all()
