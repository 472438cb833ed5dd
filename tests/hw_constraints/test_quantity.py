import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.hw_constraints.quantity import Dimension, parse_quantity


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("32 MiB", Dimension.SIZE, 33_554_432),
        ("32 MB", Dimension.SIZE, 32_000_000),
        ("4.8 TB/s", Dimension.BANDWIDTH, 4.8e12),
        ("1 GiB/s", Dimension.BANDWIDTH, 2**30),
        ("1 GHz", Dimension.FREQUENCY, 1e9),
        ("1024 MAC/cycle", Dimension.MACS_PER_CYCLE, 1024),
        ("171 TOPS", Dimension.OPERATIONS_RATE, 1.71e14),
        ("15 mW", Dimension.POWER, 0.015),
        ("500 cycles", Dimension.CYCLES, 500),
    ],
)
def test_units(text: str, dimension: Dimension, value: float) -> None:
    quantity = parse_quantity(text, dimension)
    assert quantity.value == pytest.approx(value, rel=1e-15)
    assert str(quantity) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("32", r"expected a number, a space and a unit \(B, kB, MB, GB, TB, KiB, MiB, GiB, TiB\)"),
        ("32MB", r"expected a number, a space and a unit"),
        ("32 mb", r"unit 'mb' is none of B, kB"),
        ("32 GHz", r"unit 'GHz' is none of"),
        ("-1 MB", r"expected a number"),
        ("0 MB", r"greater than 0"),
        ("nan MB", r"expected a number"),
        ("1" * 400 + " MB", r"greater than 0"),
    ],
)
def test_what_is_no_size_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_quantity(text, Dimension.SIZE)


@given(st.text(max_size=20), st.sampled_from(Dimension))
def test_any_text_is_refused_or_positive(text: str, dimension: Dimension) -> None:
    with contextlib.suppress(ValueError):
        assert parse_quantity(text, dimension).value > 0
