"""A search space as integers: each candidate as the places of its choices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from bitwright.nas.space import Candidate, SearchSpace, Value

Places = tuple[int, ...]
Floats = npt.NDArray[np.float64]


class Grid:
    """Places of choices, candidates and features of one space; what was worked out once is kept.

    Attributes:
        parameters: of the space.
        sizes: how many choices each has.
        names: of the parameters.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.parameters = space.parameters
        self.sizes = tuple(len(each.choices) for each in self.parameters)
        self.names = {each.name for each in self.parameters}
        self._place_of: list[dict[Value, int]] = [
            {choice: place for place, choice in enumerate(each.choices)} for each in self.parameters
        ]
        self._candidates: dict[Places, Candidate] = {}
        self._canonical: dict[Places, Places] = {}

    @property
    def size(self) -> int:
        """The number of combinations; several may be the same candidate."""
        return math.prod(self.sizes)

    @property
    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """What `Parameter.suggest` asks Optuna for."""
        return {
            each.name: optuna.distributions.IntDistribution(0, len(each.choices) - 1)
            if each.ordered
            else optuna.distributions.CategoricalDistribution(each.choices)
            for each in self.parameters
        }

    def canonical(self, places: Places) -> Places:
        """The one spelling of all places that mean the same candidate."""
        if places not in self._canonical:
            named = zip(self.parameters, places, strict=True)
            values = self.space.canonical({each.name: each.choices[place] for each, place in named})
            spelled = tuple(of[values[each.name]] for each, of in zip(self.parameters, self._place_of, strict=True))
            self._candidates[places] = self._candidates.setdefault(spelled, Candidate(values))
            self._canonical[places] = self._canonical[spelled] = spelled
        return self._canonical[places]

    def candidate(self, places: Places) -> Candidate:
        """The candidate that places stand for."""
        self.canonical(places)
        return self._candidates[places]

    def places(self, params: Mapping[str, Any]) -> Places:
        """Places of what Optuna suggested (`Trial.params`), canonical."""
        return self.canonical(
            tuple(
                params[each.name] if each.ordered else of[params[each.name]]
                for each, of in zip(self.parameters, self._place_of, strict=True)
            )
        )

    def params(self, places: Places) -> dict[str, Any]:
        """The reverse of `places`."""
        return {
            each.name: place if each.ordered else each.choices[place]
            for each, place in zip(self.parameters, places, strict=True)
        }

    def of_values(self, values: Mapping[str, Value]) -> Places | None:
        """Places of a candidate of another study; None where a value is missing or none of the choices."""
        named = zip(self.parameters, self._place_of, strict=True)
        raw = tuple(of.get(values[each.name], -1) if each.name in values else -1 for each, of in named)
        return None if -1 in raw else self.canonical(raw)

    def features(self, places: Sequence[Places]) -> Floats:
        """What a surrogate sees, [n, features] within 0…1: ordered choices as one number, others one for each choice.

        An unordered pair of choices differs by the distance 1, as the ends of an ordered parameter do.
        """
        codes = np.asarray(places, dtype=np.int64).reshape(len(places), len(self.sizes))
        columns: list[Floats] = []
        for column, (each, count) in enumerate(zip(self.parameters, self.sizes, strict=True)):
            if count == 1:
                continue
            if each.ordered:
                columns.append(codes[:, column : column + 1] / (count - 1))
            else:
                columns.append(np.eye(count)[codes[:, column]] / math.sqrt(2))
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(places), 1))

    def random(self, rng: np.random.Generator, count: int) -> list[Places]:
        """Places drawn at random, each parameter on its own; canonical, equal ones once."""
        drawn = rng.integers(np.zeros(len(self.sizes), dtype=np.int64), self.sizes, size=(count, len(self.sizes)))
        return list(dict.fromkeys(self.canonical(tuple(row)) for row in drawn.tolist()))

    def everything(self) -> list[Places]:
        """All candidates, each once."""
        combinations = np.stack(np.unravel_index(np.arange(self.size), self.sizes), axis=1)
        return list(dict.fromkeys(self.canonical(tuple(row)) for row in combinations.tolist()))

    def neighbours(self, places: Places) -> list[Places]:
        """Candidates that differ in one parameter: by one place where choices are ordered, by any choice elsewhere."""
        near: dict[Places, None] = {}
        for index, (each, count) in enumerate(zip(self.parameters, self.sizes, strict=True)):
            others = (places[index] - 1, places[index] + 1) if each.ordered else range(count)
            for other in others:
                if 0 <= other < count and other != places[index]:
                    near[self.canonical((*places[:index], other, *places[index + 1 :]))] = None
        near.pop(places, None)
        return list(near)
