"""Cycles on an array of multiply-accumulate units: tiles that pass through a memory beside it, and the array's skew.

The lowering's tiling already says what a nest takes, transfers hidden where they can be (`lower.tile_cost`, with the
array's steps and ports of `lower.array_steps`). What is added here: operands enter at the edges of the array and move
on by one unit a cycle, so that its last unit ends

    Σ (units in use along each unrolled loop − 1)

cycles after its first one, once a nest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitwright.hw_constraints.lower.array_steps import loop_lengths
from bitwright.hw_constraints.lower.tile import Tiling
from bitwright.hw_constraints.lower.work import Work
from bitwright.hw_constraints.target_hardware import Loop


@dataclass(frozen=True, kw_only=True)
class ArrayCycles:
    """Cycles of one nest.

    Attributes:
        computing: the array's steps, or what its ports need to feed it.
        waiting: for the first tiles, for transfers longer than computing, and for the last store.
        skew: between the first and the last unit.
    """

    computing: float
    waiting: float
    skew: int

    @property
    def total(self) -> float:
        """All of it."""
        return self.computing + self.waiting + self.skew


def nest_cycles(work: Work, tiling: Tiling, unroll: Mapping[Loop, int]) -> ArrayCycles:
    """Cycles of a nest that is cut into tiles.

    Args:
        work: the nest.
        tiling: how it is cut.
        unroll: iterations of each loop that run in one cycle.
    """
    return ArrayCycles(
        computing=tiling.compute_cycles,
        waiting=tiling.cycles - tiling.compute_cycles,
        skew=skew_cycles(work, unroll),
    )


def skew_cycles(work: Work, unroll: Mapping[Loop, int]) -> int:
    """Cycles between the first and the last unit in use."""
    lengths = {
        **loop_lengths(work),
        Loop.OUT_PIXELS: work.y.output * work.x.output,
        Loop.KERNEL_Y: work.y.kernel,
        Loop.KERNEL_X: work.x.kernel,
    }
    return sum(min(units, lengths[loop]) - 1 for loop, units in unroll.items())
