"""From one candidate to others of a space: at random, next to it, changed in one decision, at a given cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from bitwright.nas.space import Candidate, Parameter, SearchSpace, Value
from bitwright.quant.errors import InputError


def largest_candidate(space: SearchSpace) -> Candidate:
    """The candidate whose numbers are all the greatest; of words the first, since no network is larger for them."""
    return Candidate(space.canonical({each.name: _largest(each) for each in space.parameters}))


def _largest(parameter: Parameter) -> Value:
    numbers = [each for each in parameter.choices if not isinstance(each, str)]
    return max(numbers) if len(numbers) == len(parameter.choices) else parameter.choices[0]


def random_candidate(space: SearchSpace, rng: np.random.Generator) -> Candidate:
    """Each decision uniformly, then canonical; so a small depth, of few candidates, is as likely as a large one."""
    picked = {each.name: each.choices[int(rng.integers(len(each.choices)))] for each in space.parameters}
    return Candidate(space.canonical(picked))


def neighbours(space: SearchSpace, candidate: Candidate) -> tuple[Candidate, ...]:
    """All candidates that differ in one decision: by one step where choices are ordered, else by any other choice.

    Decisions that mean nothing beside the others make no neighbour, and each is there once.
    """
    found: dict[str, Candidate] = {}
    for each in space.parameters:
        here = each.choices.index(candidate.values[each.name])
        steps = (here - 1, here + 1) if each.ordered else range(len(each.choices))
        for step in steps:
            if 0 <= step < len(each.choices):
                near = _with(space, candidate, each.name, each.choices[step])
                found.setdefault(near.key, near)
    found.pop(candidate.key, None)
    return tuple(found.values())


def mutate(space: SearchSpace, candidate: Candidate, rng: np.random.Generator) -> Candidate:
    """Another candidate: one decision, drawn uniformly, gets another choice, drawn uniformly.

    The mutation of regularised evolution (Real et al. 2019, arXiv:1802.01548, section 3); what means nothing beside
    the other decisions is never the one that changes.

    Raises:
        InputError: the space holds no other candidate.
    """
    for changed in _shuffled_changes(space, candidate, rng):
        if changed.key != candidate.key:
            return changed
    raise InputError(f"search space: {candidate} is its only candidate, so there is nothing to change it to")


def _shuffled_changes(space: SearchSpace, candidate: Candidate, rng: np.random.Generator) -> Iterator[Candidate]:
    parameters = space.parameters
    for index in rng.permutation(len(parameters)):
        each = parameters[index]
        for choice in rng.permutation(len(each.choices)):
            yield _with(space, candidate, each.name, each.choices[choice])


def _with(space: SearchSpace, candidate: Candidate, name: str, choice: Value) -> Candidate:
    return Candidate(space.canonical({**candidate.values, name: choice}))


def sample_at_cost(
    space: SearchSpace,
    rng: np.random.Generator,
    cost: Callable[[Candidate], float],
    low: float,
    high: float,
    *,
    draws: int = 200,
    steps: int = 2000,
) -> Candidate:
    """A random candidate whose cost lies in `[low, high]`, as those are compared that cost the same.

    Drawn until one lies inside, which keeps the draw's own distribution within the band. Where the band is too narrow
    for that, the nearest draw is mutated, and a change is kept that comes no further from the band.

    Args:
        space: what is drawn from.
        rng: all randomness comes from it.
        cost: in any unit, of candidates; not finite where there is none.
        low: the least permitted cost.
        high: the greatest.
        draws: how many are drawn before walking.
        steps: how many changes are tried.

    Raises:
        InputError: nothing inside was found: names the nearest.
    """
    if not low <= high:
        raise InputError(f"low = {low:g}, high = {high:g}: the band is empty; give low <= high")

    def distance(candidate: Candidate) -> float:
        value = cost(candidate)
        return max(low - value, value - high, 0.0) if math.isfinite(value) else math.inf

    nearest, how_far = None, math.inf
    for _ in range(draws):
        drawn = random_candidate(space, rng)
        away = distance(drawn)
        if away == 0:
            return drawn
        if nearest is None or away < how_far:
            nearest, how_far = drawn, away
    assert nearest is not None
    for _ in range(steps):
        changed = mutate(space, nearest, rng)
        away = distance(changed)
        if away == 0:
            return changed
        if away <= how_far:
            nearest, how_far = changed, away
    raise InputError(
        f"no candidate was found whose cost lies in [{low:g}, {high:g}] after {draws} draws and {steps} changes; the "
        f"nearest costs {cost(nearest):g}: {nearest}"
    )
