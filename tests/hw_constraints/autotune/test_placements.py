"""The interval over processes is Student's, and one process is left to its own rounds."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from bitwright.hw_constraints.autotune.placements import Placements
from bitwright.hw_constraints.measure import paired_ratio


def drawn(processes: int, spread: float) -> Placements:
    generator = np.random.default_rng(3)
    each = []
    for _ in range(processes):
        shift = float(np.exp(generator.normal(0, spread)))
        each.append({"a": list(generator.normal(100, 0.1, 15)), "b": list(90 * shift * generator.normal(1, 0.001, 15))})
    return Placements(times_us=tuple(each))


def test_the_interval_is_that_of_the_t_test_on_logarithms():
    placements = drawn(8, 0.02)
    ratio = placements.ratio("b", "a")
    logs = [np.log(paired_ratio(each["b"], each["a"]).value) for each in placements.times_us]
    interval = ttest_1samp(logs, 0).confidence_interval(0.95)
    assert (ratio.low, ratio.high) == pytest.approx((np.exp(interval.low), np.exp(interval.high)))
    assert ratio.value == pytest.approx(np.exp(np.mean(logs)))
    assert ratio.rounds == 8 * 15


def test_it_covers_the_truth_where_rounds_of_one_process_do_not():
    one, many = drawn(1, 0.05), drawn(8, 0.05)
    truth = 0.9
    assert not one.ratio("b", "a").low <= truth <= one.ratio("b", "a").high
    assert many.ratio("b", "a").low <= truth <= many.ratio("b", "a").high


def test_it_comes_back_from_a_record():
    placements = drawn(2, 0.02)
    again = Placements.from_json(placements.to_json())
    assert again.median_us("a") == pytest.approx(placements.median_us("a"), abs=0.01)
