from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.hw_constraints.lower.array_steps import TILED, array_cycles, loop_lengths
from bitwright.hw_constraints.lower.work import Axis, Work, WorkKind
from bitwright.hw_constraints.target_hardware import Loop, Operand

I, W, O = Operand.ACTIVATIONS, Operand.WEIGHTS, Operand.OUTPUTS  # noqa: E741 - the field's names
LOOPS = (*TILED, Loop.KERNEL_Y, Loop.KERNEL_X)
INDEX = {  # of the operands' elements, as the nest reads and writes them
    I: lambda at: tuple(at[loop] for loop in LOOPS if loop is not Loop.OUT_CHANNELS),
    W: lambda at: tuple(at[loop] for loop in LOOPS if loop not in (Loop.BATCH, Loop.OUT_Y, Loop.OUT_X)),
    O: lambda at: tuple(at[loop] for loop in LOOPS if loop not in (Loop.IN_CHANNELS, Loop.KERNEL_Y, Loop.KERNEL_X)),
}


def axis(output, kernel):
    return Axis(output=output, input=output + kernel - 1, kernel=kernel)


small = st.integers(1, 4)


@st.composite
def cases(draw):
    """A nest, tile sizes that divide it or not, and an unrolling."""
    work = Work(
        kind=WorkKind.CONVOLUTION,
        batch=draw(st.integers(1, 2)),
        groups=draw(st.integers(1, 2)),
        out_channels=draw(small),
        in_channels=draw(small),
        y=axis(draw(st.integers(1, 3)), draw(st.integers(1, 2))),
        x=axis(draw(small), draw(st.integers(1, 2))),
    )
    sizes = {loop: draw(st.integers(1, length)) for loop, length in loop_lengths(work).items()}
    unroll = {loop: draw(st.integers(1, 3)) for loop in LOOPS}
    return work, sizes, unroll


def blocks(length, size):
    return [range(start, min(start + size, length)) for start in range(0, length, size)]


def clocked(work, sizes, unroll):
    """Runs the array step by step: (steps, elements that pass in each step, elements that pass once a tile)."""
    lengths = {**loop_lengths(work), Loop.KERNEL_Y: work.y.kernel, Loop.KERNEL_X: work.x.kernel}
    steps, each_step, each_tile = 0, dict.fromkeys((I, W, O), 0), dict.fromkeys((I, W, O), 0)
    for tile in product(*(blocks(lengths[loop], sizes.get(loop, lengths[loop])) for loop in LOOPS)):
        touched = {operand: set() for operand in (I, W, O)}
        for step in product(*(blocks(len(part), unroll[loop]) for loop, part in zip(LOOPS, tile, strict=True))):
            steps += 1
            parts = [[part[i] for i in taken] for part, taken in zip(tile, step, strict=True)]
            points = [dict(zip(LOOPS, point, strict=True)) for point in product(*parts)]
            for operand, index in INDEX.items():
                elements = {index(at) for at in points}
                each_step[operand] += len(elements)
                touched[operand] |= elements
        for operand in touched:
            each_tile[operand] += len(touched[operand])
    return steps, each_step, each_tile


def column(sizes):
    return np.array([[sizes[loop]] for loop in TILED])


@given(cases())
def test_steps_and_ports_are_those_of_clocking_the_array(case):
    work, sizes, unroll = case
    steps, each_step, each_tile = clocked(work, sizes, unroll)
    assert array_cycles(work, column(sizes), unroll)[0] == steps
    slow = 1e-3  # bytes a cycle: the port decides
    for operand in (I, W):
        moving = array_cycles(work, column(sizes), unroll, {operand: slow})
        staying = array_cycles(work, column(sizes), unroll, {operand: slow}, operand)
        assert moving[0] == pytest.approx(each_step[operand] / slow)
        assert staying[0] == pytest.approx(each_tile[operand] / slow)
    assert array_cycles(work, column(sizes), unroll, {O: slow})[0] == pytest.approx(each_tile[O] / slow)


@given(cases(), st.integers(1, 5))
def test_flattened_rows_and_columns_are_one_loop(case, together):
    work, sizes, _ = case
    tiles = product(blocks(work.y.output, sizes[Loop.OUT_Y]), blocks(work.x.output, sizes[Loop.OUT_X]))
    pixels = sum(-(-len(rows) * len(columns) // together) for rows, columns in tiles)
    alone = array_cycles(work, column(sizes), {Loop.OUT_PIXELS: 10**6})[0]
    count = len(blocks(work.y.output, sizes[Loop.OUT_Y])) * len(blocks(work.x.output, sizes[Loop.OUT_X]))
    assert array_cycles(work, column(sizes), {Loop.OUT_PIXELS: together})[0] == alone / count * pixels
    # Every pixel of a step has its own inputs, and all share the weights.
    slow = 1e-3
    plain = array_cycles(work, column(sizes), {}, {I: slow})
    flattened = array_cycles(work, column(sizes), {Loop.OUT_PIXELS: together}, {I: slow, W: 1e9})
    assert flattened == plain
    weights = array_cycles(work, column(sizes), {Loop.OUT_PIXELS: together}, {W: slow})[0]
    taps = work.groups * work.out_channels * work.taps
    assert weights == pytest.approx(work.batch * pixels * taps / slow)


def test_a_port_that_is_wide_enough_is_not_felt():
    work = Work(kind=WorkKind.CONVOLUTION, out_channels=96, in_channels=96, y=axis(8, 3), x=axis(8, 3))
    whole = column(loop_lengths(work))
    unroll = {Loop.OUT_CHANNELS: 96, Loop.IN_CHANNELS: 96}
    steps = array_cycles(work, whole, unroll)
    assert steps[0] == 8 * 8 * 9
    assert array_cycles(work, whole, unroll, {I: 96.0}) == steps
    assert array_cycles(work, whole, unroll, {I: 48.0}) == 2 * steps
    # 96 x 96 weights for each tap; they stay for 64 positions.
    assert array_cycles(work, whole, unroll, {W: 144.0}, W) == steps
    assert array_cycles(work, whole, unroll, {W: 72.0}, W) == 2 * steps
