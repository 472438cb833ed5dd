import math
import subprocess
import sys

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from bitwright.nas.pareto import hypervolume
from bitwright.nas.sampling import surrogate
from bitwright.nas.sampling.improvement import expected_improvement, expected_shortfall


def by_chance(mean: np.ndarray, deviation: np.ndarray, front: np.ndarray, reference: np.ndarray, draws: int) -> tuple:
    """Mean and standard error of the improvement over draws of the objectives: the definition."""
    rng = np.random.default_rng(0)
    before = hypervolume(front.tolist(), reference.tolist())
    points = mean + deviation * rng.normal(size=(draws, len(mean)))
    gains = [hypervolume([*front.tolist(), point], reference.tolist()) - before for point in points.tolist()]
    return np.mean(gains), np.std(gains) / math.sqrt(draws)


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("known", [0, 1, 2])
def test_the_expected_improvement_is_that_of_many_draws(objectives: int, known: int) -> None:
    rng = np.random.default_rng(10 * objectives + known)
    front = rng.uniform(0, 1, (5, objectives))
    reference = np.full(objectives, 1.1)
    mean = rng.uniform(0.1, 0.9, (3, objectives))
    deviation = rng.uniform(0.05, 0.4, (3, objectives))
    deviation[:, : min(known, objectives - 1)] = 0
    found = expected_improvement(mean, deviation, front, reference)
    for each in range(3):
        drawn, error = by_chance(mean[each], deviation[each], front, reference, 1000)
        assert found[each] == pytest.approx(drawn, abs=4 * error + 1e-12)


def test_what_is_certain_improves_by_its_hypervolume() -> None:
    rng = np.random.default_rng(4)
    front, reference = rng.uniform(0, 1, (6, 2)), np.ones(2)
    points = rng.uniform(-0.2, 1.2, (50, 2))
    before = hypervolume(front.tolist(), [1.0, 1.0])
    expected = [hypervolume([*front.tolist(), each], [1.0, 1.0]) - before for each in points.tolist()]
    assert expected_improvement(points, np.zeros_like(points), front, reference) == pytest.approx(expected, abs=1e-12)


def test_an_empty_front_leaves_the_whole_box() -> None:
    found = expected_improvement(np.array([[0.25, 0.5]]), np.zeros((1, 2)), np.empty((0, 2)), np.ones(2))
    assert found == pytest.approx([0.75 * 0.5])


def test_points_beyond_the_reference_do_not_count() -> None:
    mean, deviation, reference = np.array([[0.5, 0.5]]), np.array([[0.1, 0.1]]), np.ones(2)
    alone = expected_improvement(mean, deviation, np.array([[0.6, 0.4]]), reference)
    beside = expected_improvement(mean, deviation, np.array([[0.6, 0.4], [1.5, 0.0], [0.1, 2.0]]), reference)
    assert alone == beside


def test_the_shortfall_far_from_its_level_is_the_gap_or_nothing() -> None:
    level, mean, deviation = np.array([1.0, -1.0, 1.0]), np.zeros(3), np.array([1e-9, 1e-9, 0.0])
    assert expected_shortfall(level, mean, deviation) == pytest.approx([1.0, 0.0, 1.0])


@pytest.mark.filterwarnings("ignore:The optimal value found")
def test_the_surrogate_predicts_a_smooth_function_and_says_how_surely() -> None:
    """scikit-learn's own fit without a prior is the reference for how well it predicts."""
    rng = np.random.default_rng(1)
    x, asked = rng.uniform(0, 1, (30, 3)), rng.uniform(0, 1, (200, 3))
    y, truth = (np.sin(3 * each[:, 0]) + each[:, 1] ** 2 for each in (x, asked))
    y = y + 0.05 * rng.normal(size=30)
    mean, deviation = surrogate.fit(x, y, clip=False)(asked)
    kernel = Matern(np.ones(3), nu=2.5) + WhiteKernel(1e-2)
    reference = GaussianProcessRegressor(kernel, normalize_y=True).fit(x, y).predict(asked)
    assert np.abs(mean - truth).mean() < 1.5 * np.abs(reference - truth).mean()
    assert np.mean(np.abs(truth - mean) < 2 * deviation) > 0.8  # it says how unsure it is


def test_the_surrogate_is_surer_of_what_is_being_evaluated() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 1, (12, 2)), rng.normal(size=12)
    pending = np.array([[0.5, 0.5]])
    mean, before = surrogate.fit(x, y)(pending)
    believed, after = surrogate.fit(x, y, pending=pending)(pending)
    assert believed == pytest.approx(mean, rel=0.2, abs=0.1)
    assert after < 0.7 * before


def test_equal_losses_are_no_trouble() -> None:
    mean, deviation = surrogate.fit(np.eye(4), np.full(4, 0.25))(np.eye(4))
    assert mean == pytest.approx(np.full(4, 0.25))
    assert np.isfinite(deviation).all()


def test_names_of_samplers_are_known_without_learning_anything() -> None:
    check = "import sys, bitwright.nas.sampling.registry; print('sklearn' in sys.modules, 'torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", check], text=True).split() == ["False", "False"]
