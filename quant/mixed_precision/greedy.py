"""The usual heuristic, as a second candidate: the layers that lose least for what they gain, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bitwright.quant.mixed_precision.problem import Assignment
from bitwright.quant.mixed_precision.tables import Table


def greedy_path(start: Assignment, end: Assignment, noise: Table, cost: Table) -> Iterator[dict[str, str]]:
    """From one assignment to another, group by group: least noise for each unit of cost first.

    What a group gains and loses is taken alone, with all others as in `start` and `end`; groups that gain nothing come
    last, those with the least noise first.

    Args:
        start: little noise, much cost.
        end: the other way round.
        noise: of choices.
        cost: of choices.
    """

    def price(group: str) -> tuple[bool, float]:
        lost = _change(noise, start, group, end[group])
        gained = -_change(cost, {**end, group: start[group]}, group, end[group])
        return gained <= 0, lost / gained if gained > 0 else lost

    current = dict(start)
    yield dict(current)
    for group in sorted((group for group in start if start[group] != end[group]), key=price):
        current[group] = end[group]
        yield dict(current)


def first_that(path: Iterator[dict[str, str]], holds: Callable[[Assignment], bool]) -> dict[str, str] | None:
    """The first assignment of a path that keeps its limits."""
    return next((each for each in path if holds(each)), None)


def _change(table: Table, around: Assignment, group: str, name: str) -> float:
    return table.total({**around, group: name}) - table.total(around)
