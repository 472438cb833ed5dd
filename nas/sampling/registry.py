"""Samplers by name. Each is made anew for each suggestion, seeded by how many results it has been told.

So a search that was interrupted goes on exactly as the undisturbed one would.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import optuna

from bitwright.quant.errors import InputError, MissingExtraError, unknown

if TYPE_CHECKING:
    from bitwright.nas.sampling.known import Known

# TPE and GP propose at random until they have seen so many; a search of a few dozen trials cannot afford more.
_RANDOM_AT_FIRST = 8
_POPULATION = 12  # of NSGA-II and -III, likewise: Optuna's 50 would be a random search

INFORMED = "informed"


@dataclass(frozen=True, kw_only=True)
class _OptunaSampler:
    """How one of Optuna's samplers is made from a seed.

    Attributes:
        make: makes it.
        one_objective: whether it takes no more than one.
        needs: a package that Optuna does not bring, which is also the name of our extra.
    """

    make: Callable[[int], optuna.samplers.BaseSampler]
    one_objective: bool = False
    needs: str | None = None


OPTUNA_SAMPLERS: Mapping[str, _OptunaSampler] = {
    "cmaes": _OptunaSampler(
        make=lambda seed: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        one_objective=True,
        needs="cmaes",
    ),
    "gp": _OptunaSampler(
        make=lambda seed: optuna.samplers.GPSampler(
            n_startup_trials=_RANDOM_AT_FIRST, seed=seed, warn_independent_sampling=False
        )
    ),
    "nsga2": _OptunaSampler(make=lambda seed: optuna.samplers.NSGAIISampler(population_size=_POPULATION, seed=seed)),
    "nsga3": _OptunaSampler(make=lambda seed: optuna.samplers.NSGAIIISampler(population_size=_POPULATION, seed=seed)),
    "random": _OptunaSampler(make=lambda seed: optuna.samplers.RandomSampler(seed=seed)),
    "tpe": _OptunaSampler(
        make=lambda seed: optuna.samplers.TPESampler(multivariate=True, n_startup_trials=_RANDOM_AT_FIRST, seed=seed)
    ),
}
SAMPLERS = (*sorted(OPTUNA_SAMPLERS), INFORMED)


def check_sampler(name: str, *, objectives: int = 1) -> None:
    """Refuses names that are not in `SAMPLERS`, and samplers that cannot do what is asked.

    Raises:
        InputError: the name is unknown (the choices get listed), its package is missing, or it takes one objective.
    """
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    kind = OPTUNA_SAMPLERS.get(name)
    if kind is None:
        return
    if kind.one_objective and objectives > 1:
        raise InputError(
            f"search sampler = {name!r} takes one objective, and there are {objectives}; "
            "name another sampler, or make limits of all objectives but one"
        )
    if kind.needs is not None and importlib.util.find_spec(kind.needs) is None:
        raise MissingExtraError(f"search sampler {name!r}", kind.needs)


def make_sampler(name: str, *, seed: int, told: int, known: Known | None = None) -> optuna.samplers.BaseSampler:
    """The sampler for the suggestion that follows `told` results.

    Args:
        name: one of `SAMPLERS`.
        seed: of the search.
        told: how many trials were asked for before.
        known: what is known of candidates before they are trained: no sampler then proposes what is refused or was
            tried. `informed` needs it; the others are Optuna's own without it.

    Raises:
        InputError: see `check_sampler`; or `informed` is not told what is known.
    """
    mixed = np.random.SeedSequence([seed, told])
    if name == INFORMED:
        from bitwright.nas.sampling.informed import InformedSampler

        if known is None:
            raise InputError(f"search sampler {INFORMED!r} proposes from what is known of candidates; give known=")
        return InformedSampler(known, seed=seed, told=told)
    check_sampler(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        own = OPTUNA_SAMPLERS[name].make(int(mixed.generate_state(1)[0]))
    if known is None:
        return own
    from bitwright.nas.sampling.screened import ScreenedSampler

    return ScreenedSampler(own, known, rng=np.random.default_rng(mixed))
