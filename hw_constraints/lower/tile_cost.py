"""What a tiling takes: room, bytes and cycles, as one function of the loop nest, the machine, the sizes and the order.

A nest is cut into tiles that pass through a small memory one after the other; a tile's loads and the store of the tile
before it run while the array computes. With c the cycles that a tile computes, and t_p those of the transfers between
two tiles when the loop at place p of the order advances,

    cycles = loads of the first tile + Σ_p transitions_p · max(c, t_p) + c + store of the last tile

An operand is loaded anew only where a loop that it depends on has advanced (the loops inside the innermost of those
keep it in place), so the order decides the traffic. Tiles at the edge are smaller: c and t_p are the exact means over
all tiles, halos and padding included. `choose_tiling` minimises this function, the cost models report it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.lower.array_steps import (
    STATIONARY,
    TILED,
    Floats,
    Ints,
    array_cycles,
    depends,
    loop_lengths,
)
from bitwright.hw_constraints.lower.work import Axis, Work, WorkKind
from bitwright.hw_constraints.target_hardware import Engine, Loop, Memory, Operand

Flags = npt.NDArray[np.bool_]
Order = tuple[Loop, ...]

STREAMED = frozenset((Operand.ACTIVATIONS, Operand.WEIGHTS, Operand.OUTPUTS))
BIAS_BYTES = 4  # one 32-bit bias an output channel


@dataclass(frozen=True, kw_only=True)
class TileMachine:
    """What a tile meets.

    Attributes:
        capacity_bytes: room for the tiles, all buffers together.
        bytes_per_cycle: between this memory and the one behind it, loads and stores together.
        unroll: iterations of each loop that the array runs in one cycle; loops that are not named run one by one.
        ports: bytes a cycle between this memory and the array, by operand; operands without one never wait.
        stationary: the operand that stays in the array while a tile is computed.
        channel_multiple: what stored channels are rounded up to.
        accumulator_bits: of a partial sum that leaves the array.
        double_buffered: whether transfers run while the array computes.
        streamed: the operands that pass through tiles; the others are in reach already and take neither room nor time.
        tile_cycles: what each tile costs besides (to fill the array, to start a transfer).
    """

    capacity_bytes: int
    bytes_per_cycle: float
    unroll: tuple[tuple[Loop, int], ...] = ()
    ports: tuple[tuple[Operand, float], ...] = ()
    stationary: Operand | None = None
    channel_multiple: int = 1
    accumulator_bits: int = 32
    double_buffered: bool = True
    streamed: frozenset[Operand] = STREAMED
    tile_cycles: int = 0

    def __post_init__(self) -> None:
        if self.capacity_bytes < 1:
            raise ValueError(f"tile machine: capacity_bytes = {self.capacity_bytes}; must be 1 or more")
        if not self.bytes_per_cycle > 0:
            raise ValueError(f"tile machine: bytes_per_cycle = {self.bytes_per_cycle}; must be above 0")

    @classmethod
    def of(
        cls,
        engine: Engine,
        beside: Memory,
        behind: Memory,
        kind: WorkKind,
        *,
        room: int,
        streamed: frozenset[Operand] = STREAMED,
        channel_multiple: int = 1,
    ) -> TileMachine:
        """What one kind of work meets on a target.

        Args:
            engine: that runs it.
            beside: the memory that the tiles pass through, which feeds the engine.
            behind: the memory that they come from; without a bandwidth one byte a cycle, so that less traffic is
                still better than more.
            kind: of the work.
            room: bytes that are free beside the engine.
            streamed: the operands that come from behind or go there.
            channel_multiple: what stored channels are rounded up to.
        """
        clock = engine.clock_hz or 1.0
        array = engine.array
        # A memory's common bandwidth is no port of the array: buffers of the engine's own stand between the two.
        fed = [operand for operand in sorted(STREAMED) if f"{operand}_bandwidth" in beside.figures]
        ports = ((operand, beside.bytes_per_second(clock, operand)) for operand in fed)
        return cls(
            capacity_bytes=room,
            bytes_per_cycle=(behind.bytes_per_second(clock) or clock) / clock,
            unroll=tuple(sorted(array.unrolled(kind).items())) if array else (),
            ports=tuple((operand, each / clock) for operand, each in ports if each),
            stationary=STATIONARY.get(array.dataflow) if array else None,
            channel_multiple=channel_multiple,
            double_buffered=beside.use is None or beside.use.double_buffered is not False,
            streamed=streamed,
        )

    def unrolled(self, loop: Loop) -> int:
        """Iterations of one loop in a cycle."""
        return dict(self.unroll).get(loop, 1)


@dataclass(frozen=True, kw_only=True)
class TileCosts:
    """What each of n tilings takes; arrays of length n, bytes and cycles.

    Attributes:
        buffer_bytes: the room that all buffers take together.
        tiles: how many there are.
        compute_cycles: of the array alone.
        loaded_bytes: activations and weights that come in, halos and repeats included.
        partial_bytes: partial sums that go out and come back.
        stored_bytes: results.
        cycles: the whole, transfers hidden where they can be.
    """

    buffer_bytes: Ints
    tiles: Ints
    compute_cycles: Floats
    loaded_bytes: Mapping[Operand, Floats]
    partial_bytes: Floats
    stored_bytes: Floats
    cycles: Floats


class TileSpace:
    """The tilings of one nest on one machine; what does not depend on the order is reckoned once.

    Attributes:
        work: the nest.
        machine: what the tiles meet.
        sizes: int64 [6, n], the sizes of n tilings in the order of `TILED`.
        counts: int64 [6, n], how many tiles there are along each loop.
    """

    def __init__(self, work: Work, machine: TileMachine, sizes: Ints) -> None:
        self.work, self.machine, self.sizes = work, machine, sizes
        lengths = np.array(list(loop_lengths(work).values()), dtype=np.int64)[:, None]
        self.counts: Ints = -(-lengths // sizes)
        self._many = self.counts > 1

    @cached_property
    def buffer_bytes(self) -> Ints:
        """Room for all buffers; an operand with more than one tile has two where transfers overlap."""
        work, machine, many = self.work, self.machine, self._many
        batch, groups, out_channels, in_channels, out_y, out_x = self.sizes
        total = np.zeros(self.sizes.shape[1], dtype=np.int64)
        pixels = _widest(work.y, out_y) * _widest(work.x, out_x)
        stored = _rounded(groups * in_channels, machine.channel_multiple)
        copies = {
            operand: 1 + (machine.double_buffered & (self._distinct[operand] > 1)) for operand in machine.streamed
        }
        if Operand.ACTIVATIONS in machine.streamed:
            total += copies[Operand.ACTIVATIONS] * work.operands * _bytes(batch * stored * pixels, work.input_bits)
        if Operand.WEIGHTS in machine.streamed:
            total += copies[Operand.WEIGHTS] * self._weight_bytes(batch, groups, out_channels, in_channels)
        if Operand.OUTPUTS in machine.streamed:
            channels = _rounded(groups * out_channels, machine.channel_multiple)
            bits = np.where(many[3], machine.accumulator_bits, work.output_bits)
            total += copies[Operand.OUTPUTS] * _bytes(batch * channels * out_y * out_x, bits)
        return total

    def costs(self, order: Order) -> TileCosts:
        """What the tilings take when the loops run in an order, the outermost first."""
        machine = self.machine
        tiles = self.counts.prod(axis=0)
        compute = self._compute_cycles + tiles * machine.tile_cycles
        transitions, advanced = self._transitions(order)
        visits = {operand: 1 + (transitions * advanced[operand]).sum(axis=0) for operand in STREAMED}
        once = self._bytes_once
        loaded = {
            operand: once[operand] * visits[operand] / self._distinct[operand]
            for operand in (Operand.ACTIVATIONS, Operand.WEIGHTS)
        }
        # A result that is left and taken up again goes out and comes back as a partial sum each time but the last.
        returns = visits[Operand.OUTPUTS] / self._distinct[Operand.OUTPUTS] - 1
        streams_outputs = Operand.OUTPUTS in machine.streamed
        partial = 2.0 * returns * _bytes(np.array(self.work.results), machine.accumulator_bits) * streams_outputs
        stored = np.full(tiles.shape, once[Operand.OUTPUTS])
        moved = {**loaded, Operand.OUTPUTS: partial + stored}
        return TileCosts(
            buffer_bytes=self.buffer_bytes,
            tiles=tiles,
            compute_cycles=compute,
            loaded_bytes=loaded,
            partial_bytes=partial,
            stored_bytes=stored,
            cycles=self._cycles(compute / tiles, transitions, advanced, {o: moved[o] / visits[o] for o in moved}),
        )

    def _cycles(
        self, compute: Floats, transitions: Ints, advanced: Mapping[Operand, Flags], moved: Mapping[Operand, Floats]
    ) -> Floats:
        """The whole, given the mean cycles of a tile and the mean bytes of one visit of each operand."""
        transfer = sum((advanced[operand] * each for operand, each in moved.items()), np.zeros(transitions.shape))
        transfer = transfer / self.machine.bytes_per_cycle
        step = np.maximum(compute, transfer) if self.machine.double_buffered else compute + transfer
        ends = sum(moved.values(), np.zeros(compute.shape)) / self.machine.bytes_per_cycle
        cycles: Floats = (transitions * step).sum(axis=0) + compute + ends
        return cycles

    @cached_property
    def _compute_cycles(self) -> Floats:
        """Cycles of the array, summed over all tiles."""
        machine = self.machine
        return array_cycles(self.work, self.sizes, dict(machine.unroll), dict(machine.ports), machine.stationary)

    def _transitions(self, order: Order) -> tuple[Ints, dict[Operand, Flags]]:
        """For each place of the order [6, n]: how often its loop advances, and whether an operand's tile then changes.

        When a loop advances, all loops inside it begin again.
        """
        places = [TILED.index(loop) for loop in order]
        counts, many = self.counts[places], self._many[places]
        outer = np.cumprod(np.vstack((np.ones_like(counts[:1]), counts[:-1])), axis=0)
        advanced = {}
        for operand in STREAMED:
            changes = np.array([depends(self.work, operand, loop) for loop in order])[:, None] & many
            advanced[operand] = np.logical_or.accumulate(changes[::-1], axis=0)[::-1]
        return outer * (counts - 1), advanced

    @cached_property
    def _distinct(self) -> dict[Operand, Ints]:
        """How many different tiles each operand has."""
        rows = {
            operand: [i for i, loop in enumerate(TILED) if depends(self.work, operand, loop)] for operand in STREAMED
        }
        return {operand: self.counts[rows[operand]].prod(axis=0) for operand in STREAMED}

    @cached_property
    def _bytes_once(self) -> dict[Operand, Any]:
        """Bytes of all different tiles of an operand, halos twice; 0 for what is in reach already."""
        work, machine = self.work, self.machine
        channels = _rounded(np.array(work.groups * work.in_channels), machine.channel_multiple)
        rows, columns = (
            _read_positions(axis, size) for axis, size in zip((work.y, work.x), self.sizes[4:], strict=True)
        )
        results = work.batch * _rounded(np.array(work.groups * work.out_channels), machine.channel_multiple)
        once = {
            Operand.ACTIVATIONS: work.operands * _bytes(work.batch * channels * rows * columns, work.input_bits),
            Operand.WEIGHTS: self._weight_bytes(work.batch, work.groups, work.out_channels, work.in_channels),
            Operand.OUTPUTS: _bytes(results * work.y.output * work.x.output, work.output_bits),
        }
        return {operand: each if operand in machine.streamed else 0 for operand, each in once.items()}

    def _weight_bytes(self, batch: Any, groups: Any, out_channels: Any, in_channels: Any) -> Any:
        work = self.work
        copies = batch if work.weights_are_activations else 1
        kernel = work.y.kernel * work.x.kernel
        weights = _bytes(copies * groups * out_channels * in_channels * kernel, work.weight_bits)
        return weights + work.has_bias * BIAS_BYTES * groups * out_channels


def _widest(axis: Axis, results: Ints) -> Ints:
    """Input positions that the widest tile of so many results reads."""
    return np.minimum(axis.span(1) + (results - 1) * axis.stride, axis.input)


def _read_positions(axis: Axis, sizes: Ints) -> Ints:
    """Input positions that all tiles along an axis read together, for each size."""
    found = {size: _positions_of(axis, size) for size in set(sizes.tolist())}
    return np.array([found[size] for size in sizes.tolist()], dtype=np.int64)


@lru_cache(maxsize=65536)
def _positions_of(axis: Axis, size: int) -> int:
    start = np.arange(0, axis.output, size) * axis.stride - axis.padding
    stop = start + axis.span(size)
    stop[-1] = start[-1] + axis.span((axis.output - 1) % size + 1)
    return int((np.minimum(np.maximum(stop, 0), axis.input) - np.minimum(np.maximum(start, 0), axis.input)).sum())


def _rounded(channels: Ints, multiple: int) -> Ints:
    return -(-channels // multiple) * multiple


def _bytes(elements: Any, bits: Any) -> Any:
    return -(-(elements * bits) // 8)


def sizes_array(tilings: Sequence[Mapping[Loop, int]]) -> Ints:
    """Int64 [6, n] of n tilings by loop."""
    return np.array([[sizes[loop] for loop in TILED] for sizes in tilings], dtype=np.int64).T
