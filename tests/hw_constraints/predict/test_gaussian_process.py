from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import check_grad

from bitwright.hw_constraints.predict.gaussian_process import (
    GaussianProcess,
    Settings,
    learn,
    negative_log_posterior,
)

SETTINGS = Settings(scales=(0.2, 1.1, -0.3), amplitude=-0.4, noise=math.log(0.05))


def _data(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((count, 3))
    y = np.sin(x[:, 0]) + 0.3 * x[:, 1] ** 2
    return x, y - y.mean(), generator.uniform(0.001, 0.05, count)


def _differences(x: np.ndarray) -> np.ndarray:
    return np.asarray([np.square(column[:, None] - column) for column in x.T])


def test_posterior_is_scikit_learns() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    x, y, noise = _data(40)
    new = np.random.default_rng(1).standard_normal((15, 3))
    kernel = ConstantKernel(math.exp(2 * SETTINGS.amplitude)) * Matern(np.exp(SETTINGS.scales), nu=2.5)
    own = math.exp(2 * SETTINGS.noise)
    theirs = GaussianProcessRegressor(kernel, alpha=noise + own, optimizer=None).fit(x, y)
    mean, spread = theirs.predict(new, return_std=True)
    found, deviation = GaussianProcess(x, y, noise, SETTINGS).predict(new)
    np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(deviation, np.sqrt(spread**2 + own), rtol=1e-4)


def test_likelihood_is_scikit_learns() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    x, y, noise = _data(30)
    values = []
    for amplitude in (-0.4, 0.3):
        kernel = ConstantKernel(math.exp(2 * amplitude)) * Matern(np.exp(SETTINGS.scales), nu=2.5)
        own = math.exp(2 * SETTINGS.noise)
        theirs = GaussianProcessRegressor(kernel, alpha=noise + own, optimizer=None).fit(x, y)
        theta = np.array([*SETTINGS.scales, amplitude, SETTINGS.noise])
        ours, _ = negative_log_posterior(theta, _differences(x), y, noise)
        values.append(ours + theirs.log_marginal_likelihood_value_)
    assert values[0] == pytest.approx(values[1], abs=1e-5)  # the prior and a constant, which amplitude is not part of


def test_gradient_is_that_of_finite_differences() -> None:
    x, y, noise = _data(25)
    differences = _differences(x)
    theta = np.array([0.3, 1.5, 2.2, -0.2, -2.5])
    off = check_grad(
        lambda t: negative_log_posterior(t, differences, y, noise)[0],
        lambda t: negative_log_posterior(t, differences, y, noise)[1],
        theta,
    )
    assert off < 1e-3


def test_learning_finds_what_matters() -> None:
    x, y, noise = _data(120)
    settings = learn(x, y, noise * 1e-3)
    assert settings.scales[2] > max(settings.scales[:2]) + 0.5  # the third feature says nothing
    new, truth, _ = _data(60, seed=2)
    mean, spread = GaussianProcess(x, y, noise * 1e-3, settings).predict(new)
    error = np.abs(mean - truth - np.mean(mean - truth))
    assert np.median(error) < 0.03
    assert np.mean(error < 2.5 * spread) > 0.9


def test_settings_come_back_from_json() -> None:
    assert Settings.from_json(SETTINGS.to_json()) == SETTINGS
