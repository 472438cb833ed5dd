"""Which networks a step trains: the largest, the smallest, and some by chance, among those that are open by then.

Seeded by the step, so that a training that goes on draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import numpy as np

from bitwright.nas.space import Candidate, Parameter, SearchSpace, Value, hash_of
from bitwright.nas.supernet.settings import SupernetSettings
from bitwright.quant.errors import InputError

Opening = Mapping[str, tuple[float, float]]


def from_the_largest(parameter: Parameter) -> tuple[Value, ...]:
    """The choices, the largest first: numbers by value, words as declared (as `moves.largest_candidate`)."""
    numbers = all(isinstance(each, int | float) for each in parameter.choices)
    if numbers:
        return tuple(sorted(parameter.choices, reverse=True))
    return parameter.choices


def open_choices(parameter: Parameter, shrinking: Opening, progress: float) -> tuple[Value, ...]:
    """What may be drawn at `progress` in [0, 1], the largest first.

    Of n choices, the k-th smaller one (k = 1 … n - 1) opens at `begin + (k - 1) / (n - 1) * (end - begin)`: networks
    shrink step by step, as once-for-all's do (Cai et al. 2020, section 3.3). Choices without an order, of which none
    is smaller, are all open at `begin`.
    """
    choices = from_the_largest(parameter)
    span = next((span for glob, span in shrinking.items() if fnmatchcase(parameter.name, glob)), None)
    if span is None:
        return choices
    begin, end = span
    if not parameter.ordered:
        return choices if progress >= begin else choices[:1]
    opened = sum(progress >= begin + k / (len(choices) - 1) * (end - begin) for k in range(len(choices) - 1))
    return choices[: 1 + opened]


def check_shrinking(space: SearchSpace, shrinking: Opening) -> None:
    """Refuses globs that name nothing.

    Raises:
        InputError: a glob matches no parameter; lists those that there are.
    """
    names = [each.name for each in space.parameters]
    for glob in shrinking:
        if not any(fnmatchcase(name, glob) for name in names):
            raise InputError(f"supernet.shrinking: {glob!r} matches no parameter; there are: {', '.join(names)}")


def drawn(space: SearchSpace, settings: SupernetSettings, step: int, steps: int) -> tuple[Candidate, ...]:
    """The networks of a step: the largest first, then the smallest that is open, then `settings.random` by chance.

    Networks that are the same architecture are trained once, so that there are fewer while little is open.
    """
    opened = {each.name: open_choices(each, settings.shrinking, step / steps) for each in space.parameters}
    generator = np.random.default_rng((settings.seed, step))

    def by_chance(choices: tuple[Value, ...]) -> Value:
        return choices[int(generator.integers(len(choices)))]

    rules: list[Callable[[tuple[Value, ...]], Value]] = [lambda choices: choices[0], lambda choices: choices[-1]]
    rules += [by_chance] * settings.random
    found: dict[str, Candidate] = {}
    for rule in rules:
        candidate = Candidate(space.canonical({name: rule(choices) for name, choices in opened.items()}))
        found.setdefault(hash_of(dict(space.architecture(candidate))), candidate)
    return tuple(found.values())
