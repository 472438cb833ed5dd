"""Improves a first-fit placement by changing the order in which buffers are placed, where they stand highest.

Each buffer has a key; it lies at the lowest gap that the buffers with smaller keys leave it. A round gives a buffer
that reaches the peak, or one that it may stand on, another key, and places again what that moves: the buffers that live
with it, and in the order of their keys those that live with any that moved. A round that makes a buffer reach higher
than the peak is taken back at once; all others are kept, which walks along plateaus. To change the order around the
bottleneck is the idea of the allocator of Arm's Vela.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence


class Climb:
    """A placement on its way down.

    Attributes:
        offsets: of each buffer, by its position in the request.
        peak: one past the last byte that is used.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        neighbours: Sequence[Sequence[int]],
        lowest_gap: Callable[[int, Sequence[float], Sequence[int]], int],
        order: Sequence[int],
        offsets: Sequence[int],
    ) -> None:
        self.offsets = list(offsets)
        self._sizes, self._neighbours, self._lowest_gap = sizes, neighbours, lowest_gap
        self._keys = [0.0] * len(order)
        for position, i in enumerate(order):
            self._keys[i] = float(position)
        self._chance = random.Random(len(order))  # the same moves for the same request
        self._find_peak()

    def run(self, bound: int, effort: int) -> None:
        """Goes on until the peak is at the bound, or `effort` looks at a neighbour are spent."""
        spent = 0
        while self.peak > bound and spent < effort:
            spent += self._round()

    def _find_peak(self) -> None:
        ends = [offset + size for offset, size in zip(self.offsets, self._sizes, strict=True)]
        self.peak = max(ends)
        self._tops = [i for i, end in enumerate(ends) if end == self.peak and self._sizes[i]]

    def _round(self) -> int:
        """One change of order, kept or taken back; how many neighbours were looked at."""
        before = self._change_keys()
        moved: dict[int, int] = {}
        looks = self._replace(before, moved)
        if looks < 0:
            for i, offset in moved.items():
                self.offsets[i] = offset
            for i, key in before.items():
                self._keys[i] = key
            return -looks
        reach = {*self._tops, *moved}
        self._tops = [i for i in sorted(reach) if self.offsets[i] + self._sizes[i] == self.peak and self._sizes[i]]
        if not self._tops:
            self._find_peak()
            looks += len(self.offsets)
        return looks

    def _change_keys(self) -> dict[int, float]:
        """Gives one buffer another place in the order; the keys that were changed, as they were."""
        chance, keys = self._chance, self._keys
        top = chance.choice(self._tops)
        below = [j for j in self._neighbours[top] if keys[j] < keys[top] and self._sizes[j]]
        one = chance.choice(below) if below and chance.random() < 0.5 else top
        other = chance.choice(self._neighbours[one]) if self._neighbours[one] else one
        before = {one: keys[one], other: keys[other]}
        if chance.random() < 0.5:
            keys[one], keys[other] = keys[other], keys[one]
        else:
            keys[one] = keys[other] + chance.uniform(-1, 1)
        # Of two that live together with equal keys, neither would see the other.
        if any(keys[j] == keys[i] for i in before for j in self._neighbours[i]):
            for i, key in before.items():
                keys[i] = key
        return before

    def _replace(self, before: dict[int, float], moved: dict[int, int]) -> int:
        """Places anew what the changed keys move, old offsets go to `moved`; negative looks when it went too high."""
        keys, offsets, sizes = self._keys, self.offsets, self._sizes
        first = min(*before.values(), *(keys[i] for i in before))
        touched = {j for i in before for j in (i, *self._neighbours[i])}
        waiting = [(keys[j], j) for j in touched if keys[j] >= first]
        heapq.heapify(waiting)
        looks, last = 1, -1
        while waiting:
            key, i = heapq.heappop(waiting)
            if i == last:
                continue
            last = i
            looks += len(self._neighbours[i])
            offset = self._lowest_gap(i, keys, offsets)
            if offset == offsets[i]:
                continue
            moved.setdefault(i, offsets[i])
            offsets[i] = offset
            if offset + sizes[i] > self.peak:
                return -looks
            for j in self._neighbours[i]:
                if keys[j] > key:
                    heapq.heappush(waiting, (keys[j], j))
        return looks
