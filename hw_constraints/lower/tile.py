"""Chooses the tile sizes and the loop order of a fused operation: what fits, and of that what takes the fewest cycles.

Sizes worth trying are those that give one more tile: the length cut in 1, 2, 3, … parts, rounded up to what the array
and the layout take at once. A coarse grid of them is reckoned at once, then each loop's whole list is tried in turn
while the others stay, until nothing gets better. Groups go outside (every operand changes with them); of the other
loops those over positions stay together, which leaves six orders. `tests/hw_constraints/lower/test_tile.py` compares
with all sizes in all 720 orders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np

from bitwright.hw_constraints.lower.array_steps import TILED, Ints, loop_lengths
from bitwright.hw_constraints.lower.tile_cost import Order, TileMachine, TileSpace, sizes_array
from bitwright.hw_constraints.lower.work import Work
from bitwright.hw_constraints.target_hardware import Loop, Operand

GRID = 4096  # tilings that are reckoned at once, in each order
MOST_PARTS = 2**16  # that a loop is cut into one by one
SLACK = 1.02  # so many times the fewest cycles is as good, if it saves tiles: each has a command and a start of its own
_POSITIONS = (Loop.BATCH, Loop.OUT_Y, Loop.OUT_X)
ORDERS: tuple[Order, ...] = tuple(
    (Loop.GROUPS, *(loop for block in blocks for loop in block))
    for blocks in permutations((_POSITIONS, (Loop.OUT_CHANNELS,), (Loop.IN_CHANNELS,)))
)


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a nest is cut, and what that takes; bytes and cycles of the whole nest.

    Attributes:
        sizes: of a tile along each loop.
        order: the loops, the outermost first.
        buffer_bytes: room of all buffers together.
        tiles: how many there are.
        cycles: the whole.
        compute_cycles: of the array alone.
        loaded_bytes: by operand, halos and repeats included.
        partial_bytes: partial sums that go out and come back.
        stored_bytes: results.
    """

    sizes: Mapping[Loop, int]
    order: Order
    buffer_bytes: int
    tiles: int
    cycles: float
    compute_cycles: float
    loaded_bytes: Mapping[Operand, float]
    partial_bytes: float
    stored_bytes: float

    @property
    def traffic_bytes(self) -> float:
        """All that passes between the two memories."""
        return sum(self.loaded_bytes.values()) + self.partial_bytes + self.stored_bytes


@dataclass(frozen=True, kw_only=True)
class DoesNotFit:
    """Even the smallest tile is too large.

    Attributes:
        needed_bytes: the room that it takes.
        capacity_bytes: the room there is.
    """

    needed_bytes: int
    capacity_bytes: int

    def __str__(self) -> str:
        return f"the smallest tile takes {self.needed_bytes} bytes; there are {self.capacity_bytes}"


@lru_cache(maxsize=65536)
def choose_tiling(work: Work, machine: TileMachine) -> Tiling | DoesNotFit:
    """The tiling of `work` on `machine` with the fewest tiles among those within `SLACK` of the fewest cycles."""
    candidates = {loop: sizes_to_try(work, machine, loop) for loop in TILED}
    open_loops = sum(len(each) > 1 for each in candidates.values())
    share = max(int(GRID ** (1 / open_loops)), 2) if open_loops else 1
    grid = np.stack(
        [axis.ravel() for axis in np.meshgrid(*(_thinned(candidates[loop], share) for loop in TILED), indexing="ij")]
    )
    search = _Search(work, machine)
    if not search.try_sizes(grid):
        smallest = sizes_array([{loop: min(candidates[loop]) for loop in TILED}])
        needed = int(TileSpace(work, machine, smallest).buffer_bytes[0])
        return DoesNotFit(needed_bytes=needed, capacity_bytes=machine.capacity_bytes)
    search.refine(candidates)
    assert search.best is not None
    return search.best


def cost_of(work: Work, machine: TileMachine, sizes: Mapping[Loop, int], order: Order) -> Tiling:
    """What given sizes and a given order take, whether they fit or not."""
    return _tiling(TileSpace(work, machine, sizes_array([sizes])), order, 0)


def sizes_to_try(work: Work, machine: TileMachine, loop: Loop) -> list[int]:
    """Sizes of a tile along one loop, the whole length first; each a multiple of what the machine takes at once."""
    length, step = loop_lengths(work)[loop], alignment(work, machine, loop)
    most = -(-length // step)
    parts = np.arange(1, min(most, MOST_PARTS) + 1)
    if most > MOST_PARTS:  # further apart beyond: neighbours would differ by less than a part in so many
        parts = np.unique(np.append(parts, np.geomspace(MOST_PARTS, most, MOST_PARTS).astype(np.int64)).clip(max=most))
    even = -(-length // parts)
    sizes = np.minimum(-(-even // step) * step, length)
    return [int(size) for size in dict.fromkeys(sizes.tolist())]


def alignment(work: Work, machine: TileMachine, loop: Loop) -> int:
    """What a tile's size along a loop is a multiple of, unless it is the whole length.

    Channels follow the array's unrolling and the layout's packing; a depthwise layer's channels are its groups.
    """
    unroll = machine.unrolled(loop)
    channels = Loop.GROUPS if work.in_channels == work.out_channels == 1 else None
    packed = loop is channels or (work.groups == 1 and loop in (Loop.OUT_CHANNELS, Loop.IN_CHANNELS))
    return math.lcm(unroll, machine.channel_multiple) if packed else unroll


def _thinned(sizes: list[int], count: int) -> list[int]:
    """At most `count` of the sizes, first and last among them, the larger ones closer together."""
    if len(sizes) <= count:
        return sizes
    kept = np.unique(np.round(np.geomspace(1, len(sizes), count)).astype(int)) - 1
    return [sizes[i] for i in kept]


class _Search:
    """Keeps the fewest cycles seen, and of the tilings within `SLACK` of them the one with the fewest tiles."""

    def __init__(self, work: Work, machine: TileMachine) -> None:
        self.work, self.machine = work, machine
        self.fewest_cycles = math.inf
        self.best: Tiling | None = None

    def try_sizes(self, sizes: Ints) -> bool:
        """Reckons some tilings in all orders; whether one of them is now the best."""
        fits = TileSpace(self.work, self.machine, sizes).buffer_bytes <= self.machine.capacity_bytes
        if not fits.any():
            return False
        space = TileSpace(self.work, self.machine, sizes[:, fits])
        found = [space.costs(order) for order in ORDERS]
        cycles = np.stack([costs.cycles for costs in found])
        self.fewest_cycles = min(self.fewest_cycles, float(cycles.min()))
        tiles = np.broadcast_to(found[0].tiles, cycles.shape)
        place = int(np.lexsort((cycles.ravel(), tiles.ravel(), cycles.ravel() > SLACK * self.fewest_cycles))[0])
        order, column = divmod(place, cycles.shape[1])
        if self.best is None or self._rank(cycles[order, column], tiles[order, column]) < self._rank(
            self.best.cycles, self.best.tiles
        ):
            self.best = _tiling(space, ORDERS[order], column)
            return True
        return False

    def refine(self, candidates: Mapping[Loop, list[int]]) -> None:
        """Tries each loop's whole list while the others stay, until a round through all loops finds nothing better."""
        better = True
        while better and self.best is not None:
            better = False
            for loop in TILED:
                if len(candidates[loop]) > 1:
                    sizes = sizes_array([{**self.best.sizes, loop: size} for size in candidates[loop]])
                    better |= self.try_sizes(sizes)

    def _rank(self, cycles: float, tiles: int) -> tuple[bool, int, float]:
        return bool(cycles > SLACK * self.fewest_cycles), int(tiles), float(cycles)


def _tiling(space: TileSpace, order: Order, place: int) -> Tiling:
    one = TileSpace(space.work, space.machine, space.sizes[:, place : place + 1])
    costs = one.costs(order)
    return Tiling(
        sizes=dict(zip(TILED, (int(size) for size in one.sizes[:, 0]), strict=True)),
        order=order,
        buffer_bytes=int(costs.buffer_bytes[0]),
        tiles=int(costs.tiles[0]),
        cycles=float(costs.cycles[0]),
        compute_cycles=float(costs.compute_cycles[0]),
        loaded_bytes={operand: float(each[0]) for operand, each in costs.loaded_bytes.items()},
        partial_bytes=float(costs.partial_bytes[0]),
        stored_bytes=float(costs.stored_bytes[0]),
    )
