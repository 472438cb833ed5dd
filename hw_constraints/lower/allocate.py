"""Where buffers lie in a memory: offsets such that no two that live at the same time overlap, and the peak is small.

This is dynamic storage allocation, which is NP-hard. Each buffer goes to the lowest gap that takes it (first fit), in
several orders; where none of them reaches the lower bound, a hill climb changes the best ones around the buffers that
stand highest (`allocation_climb`). `tests/hw_constraints/lower/test_allocate.py` holds the result against exhaustive
search, the benchmark row `sram_allocation` against CP-SAT.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitwright.hw_constraints.lower.allocation_climb import Climb
from bitwright.hw_constraints.lower.interval_conflicts import Lifetimes

# Beyond so many pairs of buffers that live together, gaps are not searched: buffers go on top of what is there.
PAIRS_FOR_GAPS = 2_000_000
# How many looks at a neighbour the hill climb may take; about half a second where it takes them all.
EFFORT = 1_500_000
_STARTS = 2  # orders from which it climbs, the best ones


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """Bytes that are needed from one step to another.

    Attributes:
        name: unique among those that are placed together.
        size_bytes: 0 is allowed and takes no room.
        first: the step that writes it.
        last: the last step that reads it, itself included.
        alignment: its offset is a multiple of it, in bytes.
    """

    name: str
    size_bytes: int
    first: int
    last: int
    alignment: int = 1

    def __post_init__(self) -> None:
        if self.size_bytes < 0:
            raise ValueError(f"buffer {self.name!r}: size_bytes = {self.size_bytes}; must be 0 or more")
        if self.last < self.first:
            raise ValueError(f"buffer {self.name!r}: last = {self.last} lies before first = {self.first}")
        if self.alignment < 1:
            raise ValueError(f"buffer {self.name!r}: alignment = {self.alignment}; must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where each buffer lies.

    Attributes:
        offsets: the first byte of each buffer, by its name.
        peak_bytes: one past the last byte that is ever used.
        bound_bytes: what no placement can stay under: the largest sum of buffers that live at once.
        capacity: the memory's size, where one was given.
    """

    offsets: Mapping[str, int]
    peak_bytes: int
    bound_bytes: int
    capacity: int | None = None

    @property
    def fits(self) -> bool:
        """Whether the memory takes it; without a capacity always."""
        return self.capacity is None or self.peak_bytes <= self.capacity


def allocate(buffers: Sequence[Buffer], capacity: int | None = None, *, effort: int = EFFORT) -> Placement:
    """Places buffers in one memory.

    Args:
        buffers: in any order; the answer depends on them alone, never on time or chance.
        capacity: the memory's size in bytes. A placement that does not fit is returned as it is: what to spill is
            the scheduler's decision.
        effort: bounds the hill climb, in looks at a neighbour; 0 leaves it out.

    Raises:
        ValueError: two buffers have the same name.
    """
    if len({buffer.name for buffer in buffers}) < len(buffers):
        names = [buffer.name for buffer in buffers]
        raise ValueError(f"buffer {next(name for name in names if names.count(name) > 1)!r} is given twice")
    lifetimes = Lifetimes.of([buffer.first for buffer in buffers], [buffer.last for buffer in buffers])
    bound = _bound(buffers, lifetimes)
    if not buffers:
        return Placement(offsets={}, peak_bytes=0, bound_bytes=0, capacity=capacity)
    if lifetimes.pair_count > PAIRS_FOR_GAPS:
        offsets = _stack(buffers, lifetimes)
    else:
        offsets = _FirstFit(buffers, lifetimes.neighbours()).search(_orders(buffers, lifetimes), bound, effort)
    peak = max(offset + buffer.size_bytes for buffer, offset in zip(buffers, offsets, strict=True))
    named = {buffer.name: offset for buffer, offset in zip(buffers, offsets, strict=True)}
    return Placement(offsets=named, peak_bytes=peak, bound_bytes=bound, capacity=capacity)


def _bound(buffers: Sequence[Buffer], lifetimes: Lifetimes) -> int:
    """The largest sum of live sizes.

    Offsets are multiples of the alignments' common divisor, which rounds every size up but that of the buffer on top:
    at each moment the one that rounding adds most to may be that one.
    """
    if not buffers:
        return 0
    grain = math.gcd(*(buffer.alignment for buffer in buffers))
    sizes = np.array([buffer.size_bytes for buffer in buffers], dtype=np.int64)
    rounded = -(-sizes // grain) * grain
    return int((lifetimes.live_sum(rounded) - lifetimes.largest_live(rounded - sizes)).max())


def _orders(buffers: Sequence[Buffer], lifetimes: Lifetimes) -> list[list[int]]:
    """Orders of placing that do well on networks; each wins on some.

    Large ones first; large ones in the most crowded steps first ("greedy by breadth"); large areas (bytes × steps)
    first; as they end, the last one first; as they begin; long-lived ones first.
    """
    sizes = np.array([buffer.size_bytes for buffer in buffers], dtype=np.int64)
    crowded = lifetimes.live_max(lifetimes.live_sum(sizes))
    spans = [lifetimes.last[i] - lifetimes.first[i] + 1 for i in range(len(buffers))]
    keys: tuple[Callable[[int], tuple[int, ...]], ...] = (
        lambda i: (-buffers[i].size_bytes, buffers[i].first),
        lambda i: (-crowded[i], -buffers[i].size_bytes, buffers[i].first),
        lambda i: (-buffers[i].size_bytes * spans[i], buffers[i].first),
        lambda i: (-lifetimes.last[i], -buffers[i].size_bytes),
        lambda i: (lifetimes.first[i], -buffers[i].size_bytes),
        lambda i: (-spans[i], -buffers[i].size_bytes, buffers[i].first),
    )
    return [sorted(range(len(buffers)), key=lambda i, key=key: (*key(i), i)) for key in keys]  # type: ignore[misc]


def _stack(buffers: Sequence[Buffer], lifetimes: Lifetimes) -> list[int]:
    """Long-lived and large buffers first, each on top of all that it lives with; gaps stay empty."""
    top = np.zeros(lifetimes.moments, dtype=np.int64)
    offsets = [0] * len(buffers)
    for i in _orders(buffers, lifetimes)[-1]:
        steps = top[lifetimes.first[i] : lifetimes.last[i] + 1]
        offsets[i] = _aligned(int(steps.max()), buffers[i].alignment)
        steps[:] = offsets[i] + buffers[i].size_bytes
    return offsets


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


class _FirstFit:
    """First fit in an order, and the climb over orders.

    Attributes:
        sizes: bytes of each buffer, by its position in the request.
        alignments: of each buffer.
        neighbours: for each buffer those that live at some step with it.
    """

    def __init__(self, buffers: Sequence[Buffer], neighbours: Sequence[Sequence[int]]) -> None:
        self.sizes = [buffer.size_bytes for buffer in buffers]
        self.alignments = [buffer.alignment for buffer in buffers]
        self.neighbours = neighbours

    def search(self, orders: Sequence[list[int]], bound: int, effort: int) -> list[int]:
        """The best offsets found; stops as soon as the peak is at the bound."""
        tried: list[tuple[int, int, list[int]]] = []
        for number, order in enumerate(orders):
            offsets = self.place(order)
            tried.append((self.peak(offsets), number, offsets))
            if tried[-1][0] <= bound:
                return offsets
        tried.sort()
        best = tried[0][0], tried[0][2]
        for _, number, offsets in tried[:_STARTS]:
            climb = Climb(self.sizes, self.neighbours, self.lowest_gap, orders[number], offsets)
            climb.run(bound, effort // _STARTS)
            best = min(best, (climb.peak, climb.offsets))
            if best[0] <= bound:
                break
        return best[1]

    def place(self, order: Sequence[int]) -> list[int]:
        """Each buffer at the lowest gap that those before it leave."""
        ranks, offsets = [0.0] * len(order), [0] * len(order)
        for position, i in enumerate(order):
            ranks[i] = float(position)
        for i in order:
            offsets[i] = self.lowest_gap(i, ranks, offsets)
        return offsets

    def lowest_gap(self, i: int, ranks: Sequence[float], offsets: Sequence[int]) -> int:
        """Where a buffer comes to lie among those of its neighbours that have smaller ranks."""
        sizes, rank, size = self.sizes, ranks[i], self.sizes[i]
        if not size:
            return 0
        taken = sorted((offsets[j], offsets[j] + sizes[j]) for j in self.neighbours[i] if ranks[j] < rank)
        offset, alignment = 0, self.alignments[i]
        for low, high in taken:
            if low - offset >= size:
                break
            if high > offset:
                offset = -(-high // alignment) * alignment
        return offset

    def peak(self, offsets: Sequence[int]) -> int:
        """One past the last byte that is used."""
        return max(offset + size for offset, size in zip(offsets, self.sizes, strict=True))


def overlaps(buffers: Sequence[Buffer], offsets: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of buffers that live together and share a byte; empty for a valid placement. Sorted by offset, O(n²)."""
    found = []
    placed = sorted((buffer for buffer in buffers if buffer.size_bytes), key=lambda buffer: offsets[buffer.name])
    for position, one in enumerate(placed):
        for other in placed[position + 1 :]:
            if offsets[other.name] >= offsets[one.name] + one.size_bytes:
                break
            if one.first <= other.last and other.first <= one.last:
                found.append((one.name, other.name))
    return found
