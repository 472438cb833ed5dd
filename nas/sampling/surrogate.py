"""A Gaussian process over candidates: what an objective is expected to be, and how sure that is."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from bitwright.nas.sampling.grid import Floats

# Lengthscales ~ LogNormal(√2 + ln(d) / 2, √3): Hvarfner, Hellsten, Nardi 2024, Vanilla Bayesian optimization performs
# great in high dimensions, section 4.
_LENGTHSCALE = (math.sqrt(2), math.sqrt(3))
_NOISE = (-4.0, 1.0)  # LogNormal, of a variance of 1: a metric counted on hundreds of samples
_FITTED_TO = 128  # points for hyperparameters: they hardly move beyond, and cost the cube
_REFITTED = 1.15  # hyperparameters are fitted again when there are so many times more points
_KEPT = 64  # fitted kernels

Surrogate = Callable[[Floats], tuple[Floats, Floats]]
_kernels: dict[str, Any] = {}


def fit(features: Floats, losses: Floats, *, pending: Floats | None = None, clip: bool = True) -> Surrogate:
    """A surrogate of one objective: Matérn 5/2 with a lengthscale for each feature, and noise; maximum a posteriori.

    Args:
        features: [points, features].
        losses: [points], less is better.
        pending: features of points that are being evaluated, [n, features]: they are believed to become what is
            expected of them, so that the surrogate is sure of them already (the kriging believer of Ginsbourger,
            Le Riche, Carraro 2010).
        clip: whether to draw in what lies far on the bad side, to the upper quartile and 1.5 interquartile ranges: how
            bad the worst are is of no interest, and would stretch the scale.

    Returns:
        What takes features [n, features] and gives mean [n] and deviation [n] of the objective without its noise.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor

    stage = _last_stage(len(features))
    kernel = _most_probable_kernel(features[:stage], _standardized(losses[:stage], clip)[0])
    targets, centre, scale = _standardized(losses, clip)
    process = GaussianProcessRegressor(kernel, optimizer=None, alpha=1e-8).fit(features, targets)
    if pending is not None and len(pending):
        believed = process.predict(pending)
        process.fit(np.concatenate([features, pending]), np.concatenate([targets, believed]))
    noise = kernel.k2.noise_level

    def predict(asked: Floats) -> tuple[Floats, Floats]:
        mean, deviation = process.predict(asked, return_std=True)
        return mean * scale + centre, np.sqrt(np.maximum(deviation**2 - noise, 1e-12)) * scale

    return predict


def _standardized(losses: Floats, clip: bool) -> tuple[Floats, float, float]:
    low, high = np.quantile(losses, [0.25, 0.75])
    if clip and high > low:
        losses = np.minimum(losses, high + 1.5 * (high - low))
    centre, scale = float(losses.mean()), float(losses.std()) or 1.0
    return (losses - centre) / scale, centre, scale


def _last_stage(count: int) -> int:
    """The last of 1, 2, 3, …, ⌈1.15 n⌉, … that is no more than `count`: hyperparameters are those of so many points.

    So they follow from the points alone, and are still not fitted anew for each of them.
    """
    stage = 1
    while math.ceil(stage * _REFITTED) <= count:
        stage = math.ceil(stage * _REFITTED)
    return stage


def _most_probable_kernel(features: Floats, targets: Floats) -> Any:
    """The kernel with its hyperparameters fitted to points; the same points find it again without fitting."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern, WhiteKernel

    if len(features) > _FITTED_TO:
        chosen = np.linspace(0, len(features) - 1, _FITTED_TO).round().astype(int)
        features, targets = features[chosen], targets[chosen]
    key = hashlib.sha256(features.tobytes() + targets.tobytes()).hexdigest()
    if key not in _kernels:
        dimensions = features.shape[1]
        start = math.exp(_LENGTHSCALE[0] - 0.5) * math.sqrt(dimensions)
        kernel = Matern(np.full(dimensions, start), (1e-2, 1e3), nu=2.5) + WhiteKernel(math.exp(_NOISE[0]), (1e-6, 1.0))
        process = GaussianProcessRegressor(kernel, optimizer=_most_probable, alpha=1e-8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # lengthscales of what does not matter: at their bound
            process.fit(features, targets)
        while len(_kernels) >= _KEPT:
            _kernels.pop(next(iter(_kernels)))
        _kernels[key] = process.kernel_
    return _kernels[key]


def _most_probable(likelihood: Any, initial: Floats, bounds: Floats) -> tuple[Floats, float]:
    """Minimises the negative log likelihood less the log prior of log hyperparameters; scikit-learn's `optimizer`."""
    from scipy.optimize import minimize

    dimensions = len(initial) - 1
    centre = np.append(np.full(dimensions, _LENGTHSCALE[0] + 0.5 * math.log(dimensions)), _NOISE[0])
    width = np.append(np.full(dimensions, _LENGTHSCALE[1]), _NOISE[1])

    def posterior(theta: Floats) -> tuple[float, Floats]:
        value, gradient = likelihood(theta)
        away = (theta - centre) / width
        return value + 0.5 * float(away @ away), gradient + away / width

    found = minimize(posterior, initial, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": 40})
    return found.x, float(found.fun)
