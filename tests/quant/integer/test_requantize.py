"""The roundings of devices against their definitions in Python's unbounded integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitwright.quant.formats import FORMATS
from bitwright.quant.integer.accumulators import bits_needed, overflows, worst_case, wrapped
from bitwright.quant.integer.codes import Grid
from bitwright.quant.integer.layers import convolution_sums
from bitwright.quant.integer.requantize import Rounding, quantized_multiplier, requantize, rounding_shift
from bitwright.quant.integer.window import Window

accumulators = st.integers(-(2**31), 2**31 - 1)
multipliers = st.floats(2.0**-20, 0.999, allow_nan=False)


def half_away(value: Fraction) -> int:
    whole = abs(value) + Fraction(1, 2)
    return int(whole) if value >= 0 else -int(whole)


@given(multipliers)
def test_a_multiplier_is_31_bits_and_a_shift(multiplier: float) -> None:
    mantissa, shift = (int(each) for each in quantized_multiplier(np.float64(multiplier)))
    assert 2**30 <= mantissa < 2**31
    assert abs(Fraction(mantissa) * Fraction(2) ** (shift - 31) - Fraction(multiplier)) <= Fraction(2) ** (shift - 32)


@given(accumulators, multipliers)
def test_double_rounding_is_a_high_multiply_and_a_shift(accumulator: int, multiplier: float) -> None:
    """gemmlowp, fixedpoint.h: first to a multiple of 2^-31, half towards the larger magnitude, then of 2^right."""
    mantissa, shift = (int(each) for each in quantized_multiplier(np.float64(multiplier)))
    product = accumulator * mantissa
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    high = abs(nudged) // 2**31 * (1 if nudged >= 0 else -1)
    expected = half_away(Fraction(high, 2**-shift))
    found = requantize(np.array([accumulator]), np.float64(multiplier), Rounding.DOUBLE_ROUNDING)
    assert int(found[0]) == expected


@given(accumulators, multipliers)
def test_single_rounding_rounds_half_up(accumulator: int, multiplier: float) -> None:
    mantissa, shift = (int(each) for each in quantized_multiplier(np.float64(multiplier)))
    expected = (Fraction(accumulator * mantissa, 2 ** (31 - shift)) + Fraction(1, 2)).__floor__()
    found = requantize(np.array([accumulator]), np.float64(multiplier), Rounding.SINGLE_ROUNDING)
    assert int(found[0]) == expected


@given(accumulators, st.integers(0, 20))
def test_a_shift_rounds_half_away_from_zero(accumulator: int, bits: int) -> None:
    expected = half_away(Fraction(accumulator, 2**bits))
    assert int(rounding_shift(np.array([accumulator]), bits)[0]) == expected
    found = requantize(np.array([accumulator]), np.float64(2.0**-bits), Rounding.POWER_OF_TWO)
    assert int(found[0]) == expected


@given(accumulators, multipliers)
def test_all_roundings_are_within_one_of_the_truth(accumulator: int, multiplier: float) -> None:
    truth = Fraction(accumulator) * Fraction(multiplier)
    for rounding in (Rounding.SINGLE_ROUNDING, Rounding.DOUBLE_ROUNDING):
        found = int(requantize(np.array([accumulator]), np.float64(multiplier), rounding)[0])
        assert abs(found - truth) <= 1 + abs(truth) * Fraction(1, 2**30)


def test_power_of_two_refuses_another_multiplier() -> None:
    with pytest.raises(ValueError, match=r"^multiplier 0\.3 is no power of two$"):
        requantize(np.array([1]), np.float64(0.3), Rounding.POWER_OF_TWO)


def test_overflows_are_counted_by_width() -> None:
    sums = np.array([0, 2**15 - 1, 2**15, -(2**15), -(2**15) - 1, 2**23, -(2**31)])
    assert [(each.width, each.count) for each in overflows(sums)] == [(16, 4), (24, 2), (32, 0)]


@given(st.integers(-(2**40), 2**40), st.sampled_from([16, 24, 32]))
def test_wrapping_is_that_of_a_register(value: int, width: int) -> None:
    found = int(wrapped(np.array([value]), width)[0])
    assert (found - value) % 2**width == 0 and -(2 ** (width - 1)) <= found < 2 ** (width - 1)


@given(st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40))
@example(-8, -8)
def test_bits_needed_are_just_enough(one: int, other: int) -> None:
    low, high = sorted((one, other))
    bits = bits_needed(low, high)
    assert -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1)
    assert bits == 1 or not (-(2 ** (bits - 2)) <= low and high < 2 ** (bits - 2))


def test_the_worst_case_is_reached_by_the_inputs_that_cause_it() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (5, 3, 3, 3))
    fmt = FORMATS["uint8"]
    data = Grid(format=fmt, scale=np.float32(1), zero_point=77)  # type: ignore[arg-type]
    low, high = worst_case(weights, data)
    window = Window(kernel=(3, 3), stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
    for channel in range(5):
        for sign, bound in ((1, high), (-1, low)):
            worst = np.where(weights[channel] * sign > 0, data.high, data.low)
            sums = convolution_sums(data.centred(worst[None]), weights, window, 1)
            assert int(sums[0, channel, 0, 0]) == bound[channel]
