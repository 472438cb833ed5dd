"""Optuna's samplers by name. Each is made anew for each suggestion, seeded by how many results it has been told.

So a search that was interrupted goes on exactly as the undisturbed one would.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import optuna

from bitwright.quant.errors import unknown

# TPE proposes at random until it has seen so many; a search of a few dozen trials cannot afford more.
_RANDOM_AT_FIRST = 8
_POPULATION = 12  # of NSGA-II, likewise: Optuna's 50 would be a random search

SAMPLERS: Mapping[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(population_size=_POPULATION, seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(multivariate=True, n_startup_trials=_RANDOM_AT_FIRST, seed=seed),
}


def check_sampler(name: str) -> None:
    """Refuses names that are not in `SAMPLERS`.

    Raises:
        InputError: the name is unknown; the choices get listed.
    """
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)


def make_sampler(name: str, *, seed: int, told: int) -> optuna.samplers.BaseSampler:
    """The sampler for the suggestion that follows `told` results."""
    mixed = int(np.random.SeedSequence([seed, told]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](mixed)
