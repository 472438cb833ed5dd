import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.experiments.benchmarks.metrics import (
    agreement_percent,
    bootstrap,
    more_agreement,
    sqnr_db,
    top1_drop_points,
    top1_percent,
)


def one_hot(classes, count=4):
    return np.eye(count, dtype=np.float32)[np.asarray(classes)]


def test_agreement_counts_equal_top1_classes():
    assert agreement_percent(one_hot([0, 1, 2, 3]), one_hot([0, 1, 2, 0])).value == 75.0


def test_top1_counts_right_classes():
    assert top1_percent(one_hot([0, 1, 2, 3]), np.array([0, 0, 2, 3])).value == 75.0


def test_drop_is_positive_where_the_other_is_worse():
    labels = np.array([0, 1, 2, 3])
    drop = top1_drop_points(one_hot([0, 1, 2, 3]), one_hot([0, 1, 0, 0]), labels)
    assert drop.value == 50.0
    assert 0.0 <= drop.low <= 50.0 <= drop.high <= 100.0


def test_drop_is_paired():
    # Half of the images are wrong for both: unpaired, the interval would span zero by a wide margin.
    labels = np.zeros(400, dtype=int)
    reference = one_hot([0] * 200 + [1] * 200)
    drop = top1_drop_points(reference, reference, labels)
    assert (drop.low, drop.value, drop.high) == (0.0, 0.0, 0.0)


@given(st.integers(min_value=-20, max_value=20))
def test_sqnr_of_noise_of_a_known_level(level_db):
    generator = np.random.default_rng(0)
    reference = generator.normal(size=(50, 8))
    noise = generator.normal(size=reference.shape)
    noise *= math.sqrt((reference**2).sum() / (noise**2).sum()) * 10 ** (-level_db / 20)
    assert sqnr_db(reference, reference + noise).value == pytest.approx(level_db, abs=1e-9)


def test_sqnr_of_equal_logits_is_infinite():
    reference = np.ones((3, 4), np.float32)
    assert sqnr_db(reference, reference).value == math.inf


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    # 200 samples of 100 Bernoulli(0.9) trials: a 95 % interval misses the truth in about 10 of them.
    generator = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        data = (generator.random(100) < 0.9).astype(float)[:, None]
        interval = bootstrap(data, lambda sums: sums[..., 0] / 100, resamples=500, seed=seed)
        hits += interval.low <= 0.9 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_is_repeatable():
    data = np.random.default_rng(2).normal(size=(40, 1))
    first = bootstrap(data, lambda sums: sums[..., 0])
    assert first == bootstrap(data, lambda sums: sums[..., 0])
    assert first.low < first.value < first.high


def test_more_agreement_is_the_difference_of_agreements_with_an_interval_of_pairs():
    truth, one, other = one_hot([0, 1, 2, 3]), one_hot([0, 1, 2, 0]), one_hot([0, 1, 0, 0])
    found = more_agreement(truth, one, other)
    assert found.value == agreement_percent(truth, one).value - agreement_percent(truth, other).value == 25.0
    assert more_agreement(truth, one, one).interval == (0.0, 0.0)
