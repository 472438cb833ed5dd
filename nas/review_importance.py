"""How much of an objective hangs on each choice, as the candidates of one search show it.

A random forest learns the objective from the choices. On candidates that it has not seen, one choice at a time is
shuffled: with a perfect forest and choices that are independent of each other, half of what that adds to the squared
error is the choice's total-effect Sobol index, the share of the variance that it takes part in, alone or together with
others (Gregorutti, Michel & Saint-Pierre 2017, Correlation and variable importance in random forests, proposition 1;
Jansen 1999). What is noise to the forest on unseen candidates counts nothing, so a choice that does not matter stands
around 0, on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bitwright.nas.result import Result
from bitwright.nas.search_outcome import SearchOutcome

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_LEAST = 10  # candidates: two for each of the parts that take turns at being unseen
_MOST = 1_000  # candidates a forest learns from: more change its ranks little and take minutes
_PARTS, _SHUFFLES, _TREES, _RESAMPLES = 5, 4, 64, 1_000
_SHOWN = 10  # choices beside each other in a drawing
_RELIABLE = 0.3  # of the variance explained: below, the forest knows too little to rank anything


@dataclass(frozen=True, kw_only=True)
class ChoiceImportance:
    """The share of an objective's variance that a choice takes part in, with its 95 % interval over candidates."""

    choice: str
    share: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What an objective hangs on.

    Attributes:
        objective: its figure's name.
        candidates: scored ones that the forest learned from and was tried on.
        explained: the share of the variance that it explains on candidates that it has not seen (R²).
        choices: the most important first; empty when there are too few candidates.
        caution: why not to rely on it; empty when nothing speaks against that.
    """

    objective: str
    candidates: int
    explained: float
    choices: tuple[ChoiceImportance, ...]
    caution: str


def importance_of_choices(outcome: SearchOutcome, objective: str) -> Importance:
    """What an objective hangs on, by the scored candidates of a search; the same outcome gives the same figures."""
    scored, names = outcome.scored, varied(outcome.scored)
    if len(scored) > _MOST:
        chosen = np.random.default_rng(0).choice(len(scored), _MOST, replace=False)
        scored = tuple(scored[index] for index in sorted(chosen))
    values = np.array([each.figures[objective] for each in scored])
    if len(scored) < _LEAST or not names or np.ptp(values) == 0:
        why = f"scored candidates: {len(scored)}; {_LEAST} are the least that can tell anything"
        if len(scored) >= _LEAST:
            why = f"all scored candidates are alike in {objective if names else 'their choices'}"
        return Importance(objective=objective, candidates=len(scored), explained=0.0, choices=(), caution=why)
    added, left = _added_error(_encoded(scored, names), values)
    explained, shares = float(1 - left.mean() / values.var()), added / (2 * values.var())
    low, high = _interval(shares)
    found = [
        ChoiceImportance(choice=name, share=float(shares[:, i].mean()), low=float(low[i]), high=float(high[i]))
        for i, name in enumerate(names)
    ]
    return Importance(
        objective=objective,
        candidates=len(scored),
        explained=explained,
        choices=tuple(sorted(found, key=lambda each: -each.share)),
        caution=_caution(explained, len(scored), len(names)),
    )


def leading_choices(outcome: SearchOutcome, importance: Sequence[Importance]) -> list[str]:
    """The choices to show where there is no room for all, in the space's order: those that some objective hangs on."""
    names = varied(outcome.scored)
    shares = {name: max((_share_of(name, each) for each in importance), default=0.0) for name in names}
    leading = set(sorted(names, key=lambda name: -shares[name])[:_SHOWN])
    return [name for name in names if name in leading]


def _share_of(name: str, importance: Importance) -> float:
    return next((each.share for each in importance.choices if each.choice == name), 0.0)


def varied(results: Sequence[Result]) -> list[str]:
    """Names of the choices in which some candidates differ, in the space's order."""
    names = dict.fromkeys(name for each in results for name in each.values)
    return [name for name in names if len({each.values.get(name) for each in results}) > 1]


def _encoded(results: Sequence[Result], names: Sequence[str]) -> Floats:
    """[candidates, choices]: numbers as they are, words by their place in the alphabet; trees split either."""
    columns = []
    for name in names:
        chosen = [each.values.get(name) for each in results]
        words = {value: place for place, value in enumerate(sorted({str(value) for value in chosen}))}
        numeric = all(isinstance(value, int | float) for value in chosen)
        columns.append([value if numeric else words[str(value)] for value in chosen])
    return np.array(columns, dtype=np.float64).T


def _added_error(choices: Floats, values: Floats) -> tuple[Floats, Floats]:
    """For each candidate, by a forest that has not seen it: squared error added by shuffling each choice, and without.

    Args:
        choices: [candidates, choices].
        values: [candidates].

    Returns:
        [candidates, choices] and [candidates].
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    generator = np.random.default_rng(0)
    added, left = np.zeros_like(choices), np.zeros_like(values)
    for seen, unseen in KFold(_PARTS, shuffle=True, random_state=0).split(choices):
        forest = RandomForestRegressor(_TREES, random_state=0, n_jobs=1).fit(choices[seen], values[seen])
        truth, held = values[unseen], choices[unseen]
        left[unseen] = (forest.predict(held) - truth) ** 2
        # What stands in for a choice comes from all candidates: a part alone may hold one value only.
        shuffled = np.tile(held, (choices.shape[1], _SHUFFLES, 1, 1))
        for column in range(choices.shape[1]):
            shuffled[column, :, :, column] = generator.choice(choices[:, column], (_SHUFFLES, len(unseen)))
        guesses = forest.predict(shuffled.reshape(-1, choices.shape[1])).reshape(shuffled.shape[:3])
        added[unseen] = (((guesses - truth) ** 2).mean(axis=1) - left[unseen]).T
    return added, left


def _interval(shares: Floats) -> tuple[Floats, Floats]:
    """95 % intervals of the means over candidates, by resampling them."""
    generator = np.random.default_rng(0)
    count = len(shares)
    weights = generator.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES) / count
    low, high = np.quantile(weights @ shares, (0.025, 0.975), axis=0)
    return low, high


def _caution(explained: float, candidates: int, choices: int) -> str:
    if explained >= _RELIABLE:
        return ""
    return (
        f"{candidates} candidates are too few for {choices} choices: on candidates that it has not seen, the forest "
        f"explains {max(0.0, explained):.0%} of the variance, so the order says little"
    )
