from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bitwright.hw_constraints.predict.conformal import calibrate, leave_one_group_out
from bitwright.quant.errors import InputError


def _families(generator: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Scores whose scale differs from family to family and whose number does, too."""
    return {
        str(index): generator.lognormal(0.0, 0.8) * np.abs(generator.standard_normal(generator.integers(1, 30)))
        for index in range(count)
    }


def test_new_families_are_covered_as_often_as_promised() -> None:
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(1500):
        factor = calibrate(_families(generator, 25)).factor
        score = generator.lognormal(0.0, 0.8) * abs(generator.standard_normal())
        covered.append(score <= factor)
    # 90 % promised; the standard error of 1500 draws is 0.8 %, and 25 groups are at most 1/26 too careful.
    assert 0.88 <= np.mean(covered) <= 0.97


def test_one_large_family_does_not_outvote_the_others() -> None:
    large = {"large": [0.1] * 10_000} | {str(index): [1.0 + index / 100] for index in range(40)}
    assert calibrate(large).factor > 1.0
    assert float(np.quantile(np.concatenate([np.asarray(v) for v in large.values()]), 0.9)) == 0.1


def test_without_groups_it_is_split_conformal() -> None:
    generator = np.random.default_rng(1)
    scores = np.abs(generator.standard_normal(199))
    found = calibrate({str(index): [score] for index, score in enumerate(scores)})
    assert found.factor == np.sort(scores)[math.ceil(0.9 * 200) - 1]  # the k-th smallest, k = ceil((n + 1) level)


def test_too_few_groups_promise_nothing() -> None:
    found = calibrate({str(index): [1.0] for index in range(8)})
    assert found.factor == math.inf
    assert found.interval(0.0, 0.1) == (0.0, math.inf)
    assert calibrate({str(index): [1.0] for index in range(9)}).factor == 1.0


def test_interval_is_symmetric_in_the_logarithm() -> None:
    found = calibrate({str(index): [2.0] for index in range(20)})
    low, high = found.interval(math.log(100.0), 0.05)
    assert low == pytest.approx(100 * math.exp(-0.1)) and high == pytest.approx(100 * math.exp(0.1))


def test_a_drift_that_no_score_has_seen_widens_every_interval_and_restores_coverage() -> None:
    """Scores of one session; values of another, which is off by a normal of its own."""
    generator = np.random.default_rng(2)
    scores = {str(index): [score] for index, score in enumerate(np.abs(generator.standard_normal(999)))}
    blind = calibrate(scores)
    aware = replace(blind, drift=0.1)
    logs = 0.05 * generator.standard_normal(4000) + 0.1 * generator.standard_normal(4000)
    covered = {
        name: np.mean([low <= value <= high for value in np.exp(logs)])
        for name, (low, high) in (("blind", blind.interval(0.0, 0.05)), ("aware", aware.interval(0.0, 0.05)))
    }
    assert covered["blind"] < 0.6
    assert covered["aware"] == pytest.approx(0.9, abs=0.02)


def test_each_group_is_judged_by_the_others() -> None:
    scores = {str(index): [1.0] for index in range(20)} | {"odd": [50.0]}
    found = leave_one_group_out(scores)
    assert found["odd"].factor == 1.0
    assert found["odd"].groups == 20


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0])
def test_level_out_of_range(level: float) -> None:
    with pytest.raises(InputError, match=f"level = {level}; an interval covers with a probability between 0 and 1"):
        calibrate({"a": [1.0]}, level=level)


def test_scores_that_are_no_numbers() -> None:
    with pytest.raises(InputError, match="calibration group 'b' has 2 scores, all must be finite"):
        calibrate({"a": [1.0], "b": [1.0, math.nan]})
    with pytest.raises(InputError, match="calibration group 'a' has 0 scores"):
        calibrate({"a": []})
