"""Scale and zero point from a range."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.formats import FORMATS, FloatFormat
from bitwright.quant.qparams import SMALLEST_SCALE, QParams, choose_qparams, next_power_of_two
from bitwright.quant.scheme import QParamsSpec, ScaleKind

U8 = QParamsSpec(format=FORMATS["uint8"], symmetric=False)
S8 = QParamsSpec(format=FORMATS["int8"], symmetric=True)
E4M3 = QParamsSpec(format=FORMATS["float8_e4m3fn"], symmetric=True)
SPECS = [
    U8,
    S8,
    E4M3,
    QParamsSpec(format=FORMATS["int8"], symmetric=False),
    QParamsSpec(format=FORMATS["int8"], symmetric=True, narrow_range=True),
    QParamsSpec(format=FORMATS["int4"], symmetric=True),
    QParamsSpec(format=FORMATS["uint16"], symmetric=False),
    QParamsSpec(format=FORMATS["uint8"], symmetric=False, scale_kind=ScaleKind.POWER_OF_TWO),
    QParamsSpec(format=FORMATS["int8"], symmetric=True, scale_kind=ScaleKind.POWER_OF_TWO),
]


def choose(low: float, high: float, spec: QParamsSpec) -> QParams:
    return choose_qparams(torch.tensor(low), torch.tensor(high), spec)


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0.0, 6.0, 6 / 255, 0),
        (-2.0, 3.0, 5 / 255, 102),
        (-3.0, -1.0, 3 / 255, 255),  # all negative: the range reaches up to zero
        (2.0, 4.0, 4 / 255, 0),  # all positive: down to zero
        (0.5, 0.5, 0.5 / 255, 0),  # a constant
        (0.0, 0.0, 1.0, 0),  # a dead tensor
    ],
)
def test_asymmetric_ranges(low: float, high: float, scale: float, zero_point: int) -> None:
    qparams = choose(low, high, U8)
    assert float(qparams.scale) == np.float32(scale)
    assert float(qparams.zero_point) == zero_point
    assert qparams.scale.dtype == qparams.zero_point.dtype == torch.float32


def test_an_activation_cut_at_six_uses_every_code() -> None:
    """Runtimes drop ReLU6 only when 0 is the smallest code and 6 the largest."""
    qparams = choose(0.0, 6.0, U8)
    assert fake_quantize(torch.tensor([0.0, 6.0]), qparams).tolist() == [0.0, pytest.approx(6.0, abs=1e-6)]
    assert round(6.0 / float(qparams.scale)) == 255


def test_symmetric_ranges() -> None:
    assert float(choose(-2.0, 1.0, S8).scale) == np.float32(2 / 127)
    assert float(choose(-2.0, 1.0, E4M3).scale) == np.float32(2 / 448)
    unsigned = QParamsSpec(format=FORMATS["uint8"], symmetric=True)
    assert float(choose(0.0, 1.0, unsigned).scale) == np.float32(1 / 255)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.format.name}-{spec.scale_kind}")
def test_denormal_ranges_get_the_smallest_normal_scale(spec: QParamsSpec) -> None:
    assert float(choose(-1e-43, 1e-42, spec).scale) == SMALLEST_SCALE


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.format.name}-{spec.scale_kind}")
def test_the_widest_range_of_float32_does_not_overflow(spec: QParamsSpec) -> None:
    largest = torch.finfo(torch.float32).max
    scale = choose(-largest, largest, spec).scale
    assert torch.isfinite(scale)
    assert scale > 0


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [(0.0, float("nan"), "NaN or infinity"), (0.0, float("inf"), "NaN or infinity"), (1.0, -1.0, "low > high")],
)
def test_a_range_that_is_none_is_refused(low: float, high: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(low, high, U8)


def test_per_channel_ranges_are_chosen_channel_by_channel() -> None:
    low, high = torch.tensor([-1.0, 0.0, -4.0]), torch.tensor([2.0, 0.0, 1.0])
    qparams = choose_qparams(low, high, U8, axis=1)
    for channel in range(3):
        single = choose_qparams(low[channel], high[channel], U8)
        assert qparams.scale[channel] == single.scale
        assert qparams.zero_point[channel] == single.zero_point
    assert qparams.axis == 1


@given(st.floats(2.0**-126, 2.0**126, width=32))
def test_powers_of_two_are_the_smallest_that_suffice(value: float) -> None:
    power = float(next_power_of_two(torch.tensor(value)))
    assert np.frexp(power)[0] == 0.5
    assert power / 2 < value <= power


ranges = st.tuples(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32)).map(sorted)


@given(ranges, st.sampled_from(SPECS))
def test_the_range_is_representable_to_half_a_step_and_zero_exactly(ends: list[float], spec: QParamsSpec) -> None:
    low, high = ends
    qparams = choose(low, high, spec)
    values = fake_quantize(torch.tensor([low, 0.0, high]), qparams)
    assert values[1] == 0.0
    step = float(qparams.scale)
    if isinstance(spec.format, FloatFormat):
        step *= float(spec.format.max_value) * 2.0**-3  # the step between the largest values
    # The zero point is rounded, too: together up to one step.
    slack = (0.5 if spec.symmetric else 1.0) * step * (1 + 1e-5)
    assert abs(float(values[0]) - low) <= slack
    assert abs(float(values[2]) - high) <= slack


@given(ranges, st.sampled_from(SPECS), st.integers(-8, 8))
def test_qparams_follow_powers_of_two(ends: list[float], spec: QParamsSpec, power: int) -> None:
    low, high = (0.0 if abs(end) < 1e-20 else end for end in ends)
    if low == high == 0.0:
        return
    one, other = choose(low, high, spec), choose(low * 2.0**power, high * 2.0**power, spec)
    assert float(other.scale) == float(one.scale) * 2.0**power
    assert other.zero_point == one.zero_point


def test_the_range_of_qparams_is_what_its_codes_reach() -> None:
    qparams = choose(-1.0, 3.0, U8)
    low, high = qparams.range
    values = fake_quantize(torch.tensor([-1e9, 1e9]), qparams)
    assert values.tolist() == [float(low), float(high)]
    low, high = choose(-1.0, 3.0, E4M3).range
    assert (float(low), float(high)) == (-3.0, 3.0)
