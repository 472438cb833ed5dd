"""How far from the optimum are the tilings that the lowering chooses, and does every one of them fit?

Small random nests on random machines: brute force reckons every legal size of every loop in all 720 orders.
"""

from __future__ import annotations

import random
import time
from itertools import permutations
from math import inf
from typing import Any

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.lower.array_steps import TILED, Ints, loop_lengths
from bitwright.hw_constraints.lower.tile import Tiling, alignment, choose_tiling
from bitwright.hw_constraints.lower.tile_cost import TileMachine, TileSpace
from bitwright.hw_constraints.lower.work import Axis, Work, WorkKind
from bitwright.hw_constraints.target_hardware import Loop, Operand

ROW = "tiling_optimum"
CASES = 250
LONGEST = 7
KINDS = (WorkKind.CONVOLUTION, WorkKind.DEPTHWISE, WorkKind.MATRIX_PRODUCT, WorkKind.POOL, WorkKind.ELEMENTWISE)


def run(bench: Bench) -> list[Record]:
    """Draws cases until enough of them can be tiled at all."""
    chance = random.Random(0)
    choose_tiling.cache_clear()
    ratios: dict[WorkKind, list[float]] = {kind: [] for kind in KINDS}
    invalid = refused = tried = tilings = 0
    chosen_s = brute_s = 0.0
    while sum(len(each) for each in ratios.values()) < CASES:
        work, machine = draw_work(chance, KINDS[tried % len(KINDS)]), draw_machine(chance)
        tried += 1
        start = time.perf_counter()
        chosen = choose_tiling(work, machine)
        chosen_s += time.perf_counter() - start
        start = time.perf_counter()
        fewest, count = brute_force(work, machine)
        brute_s += time.perf_counter() - start
        tilings += count
        if isinstance(chosen, Tiling):
            invalid += not is_valid(work, machine, chosen)
            ratios[work.kind].append(chosen.cycles / fewest)
        else:
            refused += 1
            invalid += fewest < inf  # something would have fitted
    cost = (
        f"chosen in {1e3 * chosen_s / tried:.1f} ms, brute force {1e3 * brute_s / tried:.0f} ms a case; "
        f"{tilings:,} tilings reckoned, {refused} cases without one"
    )
    return _records(ratios, invalid, tried, cost)


def draw_work(chance: random.Random, kind: WorkKind) -> Work:
    """A nest with loops of length 1 to `LONGEST`."""
    sizes = [chance.randint(1, LONGEST) for _ in range(2)]
    alone = kind not in (WorkKind.CONVOLUTION, WorkKind.MATRIX_PRODUCT)
    matrix = kind is WorkKind.MATRIX_PRODUCT
    y, x = (_draw_axis(chance, window=not matrix and kind is not WorkKind.ELEMENTWISE) for _ in range(2))
    return Work(
        kind=kind,
        batch=chance.choice((1, 1, 2, 3)),
        groups=sizes[0] if alone else 1,
        out_channels=1 if alone else sizes[0],
        in_channels=1 if alone else sizes[1],
        y=Axis(output=1, input=1) if matrix else y,
        x=x,
        operands=2 if kind is WorkKind.ELEMENTWISE else 1,
        weight_bits=0 if kind in (WorkKind.POOL, WorkKind.ELEMENTWISE) else chance.choice((4, 8)),
        has_bias=kind is WorkKind.CONVOLUTION,
        weights_are_activations=matrix and chance.random() < 0.5,
    )


def _draw_axis(chance: random.Random, window: bool) -> Axis:
    output = chance.randint(1, LONGEST)
    if not window:
        return Axis(output=output, input=output)
    kernel, stride, padding = chance.randint(1, 3), chance.randint(1, 2), chance.randint(0, 1)
    size = max((output - 1) * stride + kernel - 2 * padding, 1)
    return Axis(output=output, input=size, kernel=kernel, stride=stride, padding=padding)


def draw_machine(chance: random.Random) -> TileMachine:
    """From hardly any room to plenty, from starved to fed."""
    unroll = {loop: chance.choice((1, 2, 4)) for loop in (Loop.OUT_CHANNELS, Loop.IN_CHANNELS, Loop.OUT_X)}
    return TileMachine(
        capacity_bytes=int(2 ** chance.uniform(5, 13)),
        bytes_per_cycle=2 ** chance.uniform(-2, 4),
        unroll=tuple(unroll.items()),
        ports=((Operand.ACTIVATIONS, 2 ** chance.uniform(0, 4)), (Operand.WEIGHTS, 2 ** chance.uniform(0, 4))),
        stationary=chance.choice((None, Operand.WEIGHTS, Operand.OUTPUTS)),
        channel_multiple=chance.choice((1, 1, 2, 4)),
        double_buffered=chance.random() < 0.7,
        tile_cycles=chance.choice((0, 0, 20)),
    )


def legal_sizes(work: Work, machine: TileMachine) -> Ints:
    """Every combination of whole lengths and multiples of the alignment, int64 [6, n]."""
    lists = []
    for loop, length in loop_lengths(work).items():
        step = alignment(work, machine, loop)
        lists.append([*range(step, length, step), length])
    return np.stack([axis.ravel() for axis in np.meshgrid(*lists, indexing="ij")])


def brute_force(work: Work, machine: TileMachine) -> tuple[float, int]:
    """The fewest cycles of all legal tilings in all orders, and how many there were; infinite where none fits."""
    sizes = legal_sizes(work, machine)
    sizes = sizes[:, TileSpace(work, machine, sizes).buffer_bytes <= machine.capacity_bytes]
    if not sizes.shape[1]:
        return inf, 0
    space = TileSpace(work, machine, sizes)
    orders = list(permutations(TILED))
    return min(float(space.costs(order).cycles.min()) for order in orders), sizes.shape[1] * len(orders)


def is_valid(work: Work, machine: TileMachine, tiling: Tiling) -> bool:
    """Whether it fits, covers every loop and keeps the alignment."""
    lengths = loop_lengths(work)
    aligned = all(
        1 <= size <= lengths[loop] and (size == lengths[loop] or size % alignment(work, machine, loop) == 0)
        for loop, size in tiling.sizes.items()
    )
    return aligned and tiling.buffer_bytes <= machine.capacity_bytes and sorted(tiling.order) == sorted(TILED)


def _records(ratios: dict[WorkKind, list[float]], invalid: int, tried: int, cost: str) -> list[Record]:
    table = [
        {
            "kind": kind,
            "cases": len(each),
            "worst ÷ optimum": max(each),
            "mean ÷ optimum": float(np.mean(each)),
            "at the optimum": sum(ratio <= 1 + 1e-9 for ratio in each),
        }
        for kind, each in ratios.items()
    ]
    common: dict[str, Any] = {"area": "hw_constraints", "table": table}
    worst = max(max(each) for each in ratios.values())
    return [
        record(f"{ROW}.worst", value=worst, unit=f"× optimum ({cost})", n=CASES, reach=Reach("≤", 1.05), **common),
        record(f"{ROW}.invalid", value=float(invalid), unit="tilings", n=tried, reach=Reach("=", 0.0), **common),
    ]
