"""Which step of several makes a network another one, found by halves: passes, opsets, versions, a rewrite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitwright.quant.parity.link import Link
from bitwright.quant.parity.locate import LinkParity, compare_links
from bitwright.quant.parity.results import Inputs


@dataclass(frozen=True, kw_only=True)
class Culprit:
    """A step that makes a network compute something else.

    Attributes:
        name: of the step.
        parity: what is behind it, beside what it was made from.
    """

    name: str
    parity: LinkParity


@dataclass(frozen=True, kw_only=True)
class StepBisection:
    """What halving found.

    Attributes:
        culprits: one by one, each with those before it left out.
        steps: how many there are to choose from.
        comparisons: how many it took.
    """

    culprits: tuple[Culprit, ...]
    steps: int
    comparisons: int


def first_broken(steps: int, compare: Callable[[int], LinkParity]) -> tuple[int, LinkParity] | None:
    """The fewest steps that break, with their comparison; None where all of them do not.

    Args:
        steps: how many there are.
        compare: what so many of them, from the first on, make of the network, beside what it was.
    """
    parity = compare(steps)
    if parity.agrees:
        return None
    low, high = -1, steps  # more than `low` steps break, `high` do
    while high - low > 1:
        middle = (low + high) // 2
        found = compare(middle)
        if found.agrees:
            low = middle
        else:
            high, parity = middle, found
    return high, parity


def broken_links(links: Sequence[Link], inputs: Sequence[Inputs]) -> StepBisection:
    """The links that do not compute what the one before them does.

    Args:
        links: each made from the one before; they hold only the inputs' own results in common, or more.
        inputs: what to run on; not empty.

    Raises:
        LinkError: a link cannot run.
    """
    culprits, begin, count = list[Culprit](), 0, 0

    def compare(steps: int) -> LinkParity:
        nonlocal count
        count += 1
        return compare_links(links[begin], links[begin + steps], inputs)

    while begin < len(links) - 1:
        broken = first_broken(len(links) - 1 - begin, compare)
        if broken is None or broken[0] == 0:  # against itself: what differs from run to run is said elsewhere
            break
        begin += broken[0]  # what is made from it is compared with it
        culprits.append(Culprit(name=links[begin].name, parity=broken[1]))
    return StepBisection(culprits=tuple(culprits), steps=len(links) - 1, comparisons=count)
