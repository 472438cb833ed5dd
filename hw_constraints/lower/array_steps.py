"""Cycles of an array of multiply-accumulate units for tiled nests: its steps, and what its ports need to feed it.

In one step the array runs `unroll` iterations of each loop side by side. A loop of length L in tiles of t takes
Σ ⌈t/u⌉ steps, and the nest takes the product. An array may run rows and columns as one flattened loop: a tile of h × w
pixels then takes ⌈h w/u⌉ steps. Operands pass ports between the small memory and the array:

    elements of an operand = Π lengths of the loops that it depends on × Π steps of the others,

since units that differ in a loop of the first kind need different elements and units that differ in one of the second
share theirs. The operand that stays in the array (the dataflow's), and results, which are summed up in the array's own
accumulators, pass once a tile: for them the others count tiles, not steps. Ports, like transfers, run beside the array,
so the nest takes the longest of steps and ports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.lower.work import Work
from bitwright.hw_constraints.target_hardware import Dataflow, Loop, Operand

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TILED = (Loop.BATCH, Loop.GROUPS, Loop.OUT_CHANNELS, Loop.IN_CHANNELS, Loop.OUT_Y, Loop.OUT_X)
_KERNEL = (Loop.KERNEL_Y, Loop.KERNEL_X)
_REDUCED = frozenset((Loop.IN_CHANNELS, *_KERNEL))
STATIONARY = {
    Dataflow.WEIGHT_STATIONARY: Operand.WEIGHTS,
    Dataflow.INPUT_STATIONARY: Operand.ACTIVATIONS,
    Dataflow.OUTPUT_STATIONARY: Operand.OUTPUTS,
}


def loop_lengths(work: Work) -> dict[Loop, int]:
    """Iterations of every loop that can be cut."""
    lengths = (work.batch, work.groups, work.out_channels, work.in_channels, work.y.output, work.x.output)
    return dict(zip(TILED, lengths, strict=True))


def depends(work: Work, operand: Operand, loop: Loop) -> bool:
    """Whether different iterations of a loop need different elements of an operand."""
    if operand is Operand.ACTIVATIONS:
        return loop is not Loop.OUT_CHANNELS
    if operand is Operand.WEIGHTS:
        shared = {Loop.OUT_Y, Loop.OUT_X, Loop.OUT_PIXELS} | (set() if work.weights_are_activations else {Loop.BATCH})
        return loop not in shared
    return loop not in _REDUCED


def array_cycles(
    work: Work,
    sizes: Ints,
    unroll: Mapping[Loop, int],
    ports: Mapping[Operand, float] | None = None,
    stationary: Operand | None = None,
) -> Floats:
    """Cycles of the array for n tilings, summed over all tiles.

    Args:
        work: the nest.
        sizes: int64 [6, n], tile sizes in the order of `TILED`.
        unroll: iterations of each loop in one step; 1 for loops that are not named.
        ports: bytes a cycle of the operands' ports; an operand without one never waits.
        stationary: the operand that stays in the array.
    """
    steps = _steps(work, sizes, unroll)
    cycles: Floats = np.asarray(np.prod(list(steps.values()), axis=0), dtype=np.float64)
    for operand, bytes_per_cycle in (ports or {}).items():
        stays = operand is stationary or operand is Operand.OUTPUTS
        cycles = np.maximum(cycles, _passed_bytes(work, operand, sizes, steps, stays) / bytes_per_cycle)
    return cycles


def _steps(work: Work, sizes: Ints, unroll: Mapping[Loop, int]) -> dict[Loop, Ints]:
    """For each loop the steps of all its tiles together, each int64 [n]."""
    found = {}
    for loop, length, size in zip(TILED, loop_lengths(work).values(), sizes, strict=True):
        together = unroll.get(loop, 1)
        found[loop] = length // size * -(-size // together) + -(-(length % size) // together)
    for loop, taps in zip(_KERNEL, (work.y.kernel, work.x.kernel), strict=True):
        found[loop] = np.full_like(sizes[0], -(-taps // unroll.get(loop, 1)))
    if Loop.OUT_PIXELS in unroll:
        del found[Loop.OUT_Y], found[Loop.OUT_X]
        found[Loop.OUT_PIXELS] = _flattened_steps(work, sizes[4], sizes[5], unroll[Loop.OUT_PIXELS])
    return found


def _flattened_steps(work: Work, rows: Ints, columns: Ints, together: int) -> Ints:
    """Steps of all tiles of rows × columns, those at the edges smaller."""
    total = np.zeros_like(rows)
    for height, high in ((rows, work.y.output // rows), (work.y.output % rows, 1)):
        for width, wide in ((columns, work.x.output // columns), (work.x.output % columns, 1)):
            total = total + high * wide * -(-(height * width) // together)
    return total


def _passed_bytes(work: Work, operand: Operand, sizes: Ints, steps: Mapping[Loop, Ints], stays: bool) -> Floats:
    lengths: dict[Loop, Any] = {**loop_lengths(work), Loop.KERNEL_Y: work.y.kernel, Loop.KERNEL_X: work.x.kernel}
    tiles: dict[Loop, Any] = {loop: -(-lengths[loop] // size) for loop, size in zip(TILED, sizes, strict=True)}
    tiles.update(dict.fromkeys(_KERNEL, 1))
    for counted in (lengths, tiles):
        counted[Loop.OUT_PIXELS] = counted[Loop.OUT_Y] * counted[Loop.OUT_X]
    elements = np.ones(sizes.shape[1])
    for loop, each in steps.items():
        elements = elements * (lengths[loop] if depends(work, operand, loop) else tiles[loop] if stays else each)
    bits = {
        Operand.ACTIVATIONS: work.operands * work.input_bits,
        Operand.WEIGHTS: work.weight_bits,
        Operand.OUTPUTS: work.output_bits,
    }[operand]
    return elements * bits / 8
