"""The statistics on data whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.hw_constraints.measure.location import location_interval, rejected_ranks
from bitwright.hw_constraints.measure.statistics import median_and_spread, paired_ratio


@pytest.mark.parametrize(("pairs", "critical"), [(5, -1), (6, 0), (10, 8), (15, 25), (20, 52), (30, 137), (50, 434)])
def test_critical_ranks_are_those_of_the_tables(pairs, critical):
    # Two-sided 5 %: McCornack 1965, J. Am. Stat. Assoc. 60, table of the Wilcoxon matched pairs signed rank statistic.
    assert rejected_ranks(pairs, 0.025) == critical


def test_the_normal_approximation_continues_the_exact_ranks():
    exact = np.array([rejected_ranks(pairs, 0.025) for pairs in range(55, 61)])
    beyond = np.array([rejected_ranks(pairs, 0.025) for pairs in range(61, 67)])
    third_differences = np.diff(np.concatenate([exact, beyond]), 3)
    assert np.abs(third_differences).max() <= 4  # a quadratic in the pairs, rounded down


@pytest.mark.parametrize("rounds", [12, 40, 100])
@pytest.mark.parametrize("noise", ["lognormal", "heavy"])
def test_the_interval_covers_the_truth_as_often_as_it_says(rounds, noise):
    random, truth, tries = np.random.default_rng(rounds), 0.97, 400
    covered = 0
    for _ in range(tries):
        common = np.exp(np.cumsum(random.normal(0, 0.2, rounds)))  # a drift that hits both
        spread = (
            random.normal(0, 0.05, (2, rounds)) if noise == "lognormal" else 0.03 * random.standard_t(2, (2, rounds))
        )
        first, second = np.exp(spread) * common
        ratio = paired_ratio(list(truth * first), list(second))
        covered += ratio.low <= truth <= ratio.high
    # 95 % of 400 with a standard deviation of 4.4: five of them to each side.
    assert covered >= 380 - 22


def test_equal_candidates_are_called_within_noise_and_different_ones_are_not():
    random, tries = np.random.default_rng(0), 300
    wrong = 0
    for _ in range(tries):
        first, second = np.exp(random.normal(0, 0.05, (2, 30)))
        wrong += paired_ratio(list(first), list(second)).verdict != "within noise"
    assert wrong <= 0.05 * tries + 5 * math.sqrt(0.05 * 0.95 * tries)
    first, second = np.exp(random.normal(0, 0.05, (2, 60)))
    assert paired_ratio(list(0.8 * first), list(second)).verdict == "faster"
    assert paired_ratio(list(1.25 * first), list(second)).verdict == "slower"


@given(st.lists(st.one_of(st.floats(-1, 1), st.integers(-2, 2)), min_size=1, max_size=80))
def test_the_interval_is_that_of_all_averages_of_two(values):
    array = np.array(values, np.float64)
    rows, columns = np.triu_indices(len(array))
    averages = np.sort((array[rows] + array[columns]) / 2)
    center, low, high = location_interval(values)
    assert center == pytest.approx(float(np.median(averages)), abs=1e-15)
    cut = rejected_ranks(len(values), 0.025)
    expected = (averages[cut], averages[-1 - cut]) if cut >= 0 else (-math.inf, math.inf)
    assert (low, high) == expected


def test_many_equal_times_take_no_time():
    values = [0.0, *[1.0] * 20_000, 2.0]
    assert location_interval(values) == (1.0, 1.0, 1.0)


@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=30), st.floats(0.01, 100))
def test_the_ratio_follows_the_scale_and_turns_around(times, factor):
    reference = [1.0 + index % 3 for index in range(len(times))]
    ratio = paired_ratio(times, reference)
    scaled = paired_ratio([factor * time for time in times], reference)
    assert scaled.value == pytest.approx(factor * ratio.value)
    assert scaled.low == pytest.approx(factor * ratio.low)
    back = paired_ratio(reference, times)
    assert back.value == pytest.approx(1 / ratio.value)
    assert (back.low, back.high) == (pytest.approx(1 / ratio.high), pytest.approx(1 / ratio.low))
    assert ratio.low <= ratio.value <= ratio.high


def test_five_rounds_exclude_nothing():
    ratio = paired_ratio([1.0] * 5, [100.0] * 5)
    assert (ratio.low, ratio.high, ratio.verdict) == (0.0, math.inf, "within noise")
    assert paired_ratio([1.0] * 6, [100.0] * 6).verdict == "faster"


def test_one_wild_round_does_not_move_the_ratio():
    times = [0.9 + 0.001 * index for index in range(20)]
    calm = paired_ratio(times, [1.0] * 20)
    assert paired_ratio([*times[:-1], 50.0], [1.0] * 20).value == pytest.approx(calm.value, rel=0.01)


def test_median_and_spread():
    assert median_and_spread([1, 2, 3, 4, 100]) == (3, 2)


@pytest.mark.parametrize(
    ("times", "reference", "message"),
    [([1.0], [1.0, 2.0], "1 and 2 times"), ([], [], "0 and 0 times"), ([0.0], [1.0], "positive"),
     ([float("nan")], [1.0], "positive and finite")],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_misuse(times, reference, message):
    with pytest.raises(ValueError, match=message):
        paired_ratio(times, reference)
