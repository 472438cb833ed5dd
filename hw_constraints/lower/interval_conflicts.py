"""Which lifetimes meet: closed intervals of steps, reckoned with NumPy over the moments at which one begins.

Two intervals meet exactly where the later one begins, so the distinct first steps are all the moments that matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lifetimes:
    """Closed intervals, their ends renumbered to moments.

    Attributes:
        first: the moment at which each begins.
        last: the last moment at which each still lives.
        moments: how many there are.
    """

    first: list[int]
    last: list[int]
    moments: int

    @classmethod
    def of(cls, first: Sequence[int], last: Sequence[int]) -> Lifetimes:
        """Of steps, any integers with `first[i] <= last[i]`."""
        begins = np.unique(np.asarray(first, dtype=np.int64))
        starts = np.searchsorted(begins, np.asarray(first, dtype=np.int64))
        ends = np.searchsorted(begins, np.asarray(last, dtype=np.int64), side="right") - 1
        return cls(starts.tolist(), ends.tolist(), len(begins))

    @cached_property
    def pair_count(self) -> int:
        """How many pairs live together."""
        starts = np.sort(np.asarray(self.first, dtype=np.int64))
        begun_before = np.searchsorted(starts, np.asarray(self.last, dtype=np.int64), side="right")
        begun_with = np.searchsorted(starts, np.asarray(self.first, dtype=np.int64), side="left")
        # Each interval counts those that begin in it; of several that begin together, each pair is seen twice.
        together = np.bincount(np.asarray(self.first, dtype=np.int64)) if self.first else np.zeros(0, dtype=np.int64)
        return int((begun_before - begun_with - 1).sum() - (together * (together - 1) // 2).sum())

    def neighbours(self) -> list[list[int]]:
        """For each interval those that it meets; time and memory grow with `pair_count`."""
        table: list[list[int]] = [[] for _ in self.first]
        alive: list[int] = []
        moment = -1
        for i in sorted(range(len(self.first)), key=self.first.__getitem__):
            if self.first[i] != moment:
                moment = self.first[i]
                alive = [j for j in alive if self.last[j] >= moment]
            for j in alive:
                table[j].append(i)
            table[i].extend(alive)
            alive.append(i)
        return table

    def live_sum(self, sizes: Ints) -> Ints:
        """For each moment the sum over the intervals that live then."""
        change = np.zeros(self.moments + 1, dtype=np.int64)
        np.add.at(change, self.first, sizes)
        np.subtract.at(change, np.asarray(self.last, dtype=np.int64) + 1, sizes)
        return np.cumsum(change)[:-1]

    def largest_live(self, values: Ints) -> Ints:
        """For each moment the largest value among the intervals that live then; 0 where none does.

        Each interval is covered by two spans of a power of two, and each span hands its maximum to its halves.
        """
        lengths = np.asarray(self.last, dtype=np.int64) - np.asarray(self.first, dtype=np.int64) + 1
        levels = np.frexp(lengths)[1] - 1
        firsts = np.asarray(self.first, dtype=np.int64)
        spans = np.zeros(self.moments, dtype=np.int64)
        for level in range(int(levels.max(initial=0)), -1, -1):
            chosen = levels == level
            width = 1 << level
            np.maximum.at(spans, firsts[chosen], values[chosen])
            np.maximum.at(spans, firsts[chosen] + lengths[chosen] - width, values[chosen])
            if level:
                halves = spans.copy()
                np.maximum(halves[width // 2 :], spans[: self.moments - width // 2], out=halves[width // 2 :])
                spans = halves
        return spans

    def live_max(self, values: Ints) -> list[int]:
        """For each interval the largest of the moments' values within it, by a table of maxima over powers of two."""
        table = [values]
        while (width := 1 << len(table)) <= self.moments:
            half = table[-1]
            table.append(np.maximum(half[: self.moments - width + 1], half[width // 2 :][: self.moments - width + 1]))
        found = []
        for first, last in zip(self.first, self.last, strict=True):
            level = (last - first + 1).bit_length() - 1
            found.append(int(max(table[level][first], table[level][last - (1 << level) + 1])))
        return found
