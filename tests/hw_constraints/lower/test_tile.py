import importlib.util
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bitwright.hw_constraints.lower.array_steps import TILED, loop_lengths
from bitwright.hw_constraints.lower.tile import (
    MOST_PARTS,
    ORDERS,
    SLACK,
    DoesNotFit,
    Tiling,
    alignment,
    choose_tiling,
    cost_of,
    sizes_to_try,
)
from bitwright.hw_constraints.lower.tile_cost import TileMachine, TileSpace, sizes_array
from bitwright.hw_constraints.lower.work import Axis, Work, WorkKind
from bitwright.hw_constraints.target_hardware import Loop, Operand


def _sibling(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


walk = _sibling("tile_walk")


@st.composite
def axes(draw, longest=12):
    kernel, stride, padding = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 1))
    output = draw(st.integers(1, longest))
    size = max((output - 1) * stride + kernel - 2 * padding, 1)
    return Axis(output=output, input=size, kernel=kernel, stride=stride, padding=padding)


@st.composite
def works(draw, longest=12):
    kind = draw(st.sampled_from((WorkKind.CONVOLUTION, WorkKind.DEPTHWISE, WorkKind.MATRIX_PRODUCT, WorkKind.POOL)))
    channels = {"out_channels": draw(st.integers(1, longest)), "in_channels": draw(st.integers(1, longest))}
    if kind in (WorkKind.DEPTHWISE, WorkKind.POOL):
        channels = {"out_channels": 1, "in_channels": 1, "groups": draw(st.integers(1, longest))}
    one = Axis(output=1, input=1)
    rows = draw(st.integers(1, longest))
    matrix = kind is WorkKind.MATRIX_PRODUCT
    return Work(
        kind=kind,
        batch=draw(st.integers(1, 3)),
        y=one if matrix else draw(axes(longest)),
        x=Axis(output=rows, input=rows) if matrix else draw(axes(longest)),
        weight_bits=0 if kind is WorkKind.POOL else draw(st.sampled_from((4, 8))),
        input_bits=draw(st.sampled_from((8, 16))),
        has_bias=kind is WorkKind.CONVOLUTION,
        weights_are_activations=matrix and draw(st.booleans()),
        **channels,
    )


@st.composite
def machines(draw):
    return TileMachine(
        capacity_bytes=draw(st.integers(64, 20_000)),
        bytes_per_cycle=draw(st.sampled_from((0.5, 2, 16))),
        unroll=((Loop.OUT_CHANNELS, draw(st.sampled_from((1, 4)))), (Loop.IN_CHANNELS, draw(st.sampled_from((1, 4))))),
        channel_multiple=draw(st.sampled_from((1, 4))),
        double_buffered=draw(st.booleans()),
        tile_cycles=draw(st.sampled_from((0, 10))),
    )


def every_tiling(work, machine):
    """All sizes that are whole or a multiple of the alignment, as int64 [6, n]."""
    lists = []
    for loop, length in loop_lengths(work).items():
        step = alignment(work, machine, loop)
        lists.append([*range(step, length, step), length])
    return np.stack([axis.ravel() for axis in np.meshgrid(*lists, indexing="ij")])


def fewest_cycles(work, machine):
    """Brute force: every legal tiling in each of the 720 orders; None where none fits."""
    sizes = every_tiling(work, machine)
    sizes = sizes[:, TileSpace(work, machine, sizes).buffer_bytes <= machine.capacity_bytes]
    if not sizes.shape[1]:
        return None
    space = TileSpace(work, machine, sizes)
    return min(float(space.costs(order).cycles.min()) for order in walk.every_order())


def even_sizes(chance, work):
    """Sizes that divide the loops, so that all tiles are alike."""
    return {
        loop: chance.choice([size for size in range(1, length + 1) if length % size == 0])
        for loop, length in loop_lengths(work).items()
    }


@given(works(longest=6), machines(), st.randoms(use_true_random=False))
def test_bytes_and_cycles_are_those_of_walking_the_tiles(work, machine, chance):
    machine = replace(machine, channel_multiple=1)
    sizes = even_sizes(chance, work)
    order = tuple(chance.sample(TILED, len(TILED)))
    assume(np.prod([length // sizes[loop] for loop, length in loop_lengths(work).items()]) < 3000)
    walked, said = walk.Walk(work, machine, sizes, order), cost_of(work, machine, sizes, order)
    assert said.compute_cycles == walked.compute
    # Halves of a byte are rounded up tile by tile in the walk.
    assert said.loaded_bytes[Operand.WEIGHTS] == pytest.approx(walked.loaded[Operand.WEIGHTS], abs=said.tiles)
    assert said.loaded_bytes[Operand.ACTIVATIONS] == pytest.approx(walked.loaded[Operand.ACTIVATIONS])
    assert said.partial_bytes == pytest.approx(walked.partial)
    assert said.stored_bytes == pytest.approx(walked.stored)


@given(works(longest=6), machines(), st.randoms(use_true_random=False))
def test_cycles_are_those_of_the_walk_where_all_tiles_are_alike(work, machine, chance):
    plain = Axis(output=6, input=6)  # without halos all loads are alike, too
    work = replace(work, y=plain, x=plain, weight_bits=8 * bool(work.weight_bits), has_bias=False)
    machine = replace(machine, channel_multiple=1)
    sizes, order = even_sizes(chance, work), ORDERS[chance.randrange(len(ORDERS))]
    walked, said = walk.Walk(work, machine, sizes, order), cost_of(work, machine, sizes, order)
    if said.partial_bytes == 0:  # the first and the last visit of a result move less than the mean one
        assert said.cycles == pytest.approx(walked.total)


@given(works(longest=5), machines())
def test_the_choice_is_within_five_percent_of_brute_force(work, machine):
    best, chosen = fewest_cycles(work, machine), choose_tiling(work, machine)
    if best is None:
        assert isinstance(chosen, DoesNotFit)
        assert chosen.needed_bytes > machine.capacity_bytes
    else:
        assert isinstance(chosen, Tiling)
        assert chosen.cycles <= 1.05 * best


@given(works(longest=40), machines())
def test_a_choice_fits_and_is_aligned(work, machine):
    chosen = choose_tiling(work, machine)
    assume(isinstance(chosen, Tiling))
    assert chosen.buffer_bytes <= machine.capacity_bytes
    assert sorted(chosen.order) == sorted(TILED)
    for loop, length in loop_lengths(work).items():
        size = chosen.sizes[loop]
        assert 1 <= size <= length
        assert size == length or size % alignment(work, machine, loop) == 0
    assert chosen == cost_of(work, machine, chosen.sizes, chosen.order)
    largest = widest_tiles(work, machine, chosen.sizes)
    assert chosen.buffer_bytes >= largest


def widest_tiles(work, machine, sizes):
    """The largest tile of each operand among those at the two ends of each loop, found by walking."""
    walker = walk.Walk.__new__(walk.Walk)
    walker.work, walker.machine = work, machine
    corners = {loop: walk.pieces(length, sizes[loop]) for loop, length in loop_lengths(work).items()}
    first = {loop: each[0] for loop, each in corners.items()}
    return sum(walker.bytes(operand, first) for operand in (walk.I, walk.W, walk.O))


@given(works(), machines(), st.integers(1, 8))
def test_more_room_or_a_wider_memory_never_costs_more(work, machine, factor):
    chosen = choose_tiling(work, machine)
    assume(isinstance(chosen, Tiling))
    for better in (
        replace(machine, capacity_bytes=machine.capacity_bytes * factor),
        replace(machine, bytes_per_cycle=machine.bytes_per_cycle * factor),
    ):
        assert choose_tiling(work, better).cycles <= 1.05 * chosen.cycles


def test_tiles_are_saved_where_they_gain_little():
    work = convolution(channels=16, filters=96, size=112, kernel=1)
    machine = TileMachine(capacity_bytes=384 * 1024, bytes_per_cycle=12)
    chosen = choose_tiling(work, machine)
    finest = cost_of(work, machine, {**chosen.sizes, Loop.OUT_Y: 1, Loop.OUT_X: 1}, chosen.order)
    assert chosen.cycles <= SLACK * finest.cycles
    assert chosen.tiles < finest.tiles / 100


def convolution(channels, filters, size, kernel):
    axis = Axis(output=size, input=size, kernel=kernel, padding=kernel // 2)
    return Work(kind=WorkKind.CONVOLUTION, out_channels=filters, in_channels=channels, y=axis, x=axis)


def test_weights_stay_where_they_are_the_larger_operand():
    # 512 x 512 x 3 x 3 weights on 7 x 7 pixels: read each weight once, whatever happens to the activations.
    work = convolution(channels=512, filters=512, size=7, kernel=3)
    chosen = choose_tiling(work, TileMachine(capacity_bytes=128 * 1024, bytes_per_cycle=8))
    assert chosen.loaded_bytes[Operand.WEIGHTS] == work.weight_bytes
    assert chosen.partial_bytes == 0


def test_operands_in_reach_take_neither_room_nor_time():
    work = convolution(channels=64, filters=64, size=56, kernel=3)
    streamed = TileMachine(capacity_bytes=64 * 1024, bytes_per_cycle=8)
    only_weights = replace(streamed, streamed=frozenset((Operand.WEIGHTS,)))
    chosen = choose_tiling(work, only_weights)
    assert chosen.loaded_bytes[Operand.ACTIVATIONS] == chosen.stored_bytes == 0
    assert chosen.traffic_bytes == work.weight_bytes
    assert chosen.cycles < choose_tiling(work, streamed).cycles


def test_what_does_not_fit_says_how_much_is_missing():
    work = convolution(channels=64, filters=64, size=8, kernel=3)
    machine = TileMachine(capacity_bytes=100, bytes_per_cycle=8, unroll=((Loop.IN_CHANNELS, 32),))
    chosen = choose_tiling(work, machine)
    assert isinstance(chosen, DoesNotFit)
    enough = replace(machine, capacity_bytes=chosen.needed_bytes)
    assert isinstance(choose_tiling(work, enough), Tiling)
    assert str(chosen) == f"the smallest tile takes {chosen.needed_bytes} bytes; there are 100"


def test_sizes_to_try_are_those_that_make_one_tile_more():
    work = convolution(channels=1, filters=10, size=1, kernel=1)
    machine = TileMachine(capacity_bytes=1, bytes_per_cycle=1)
    assert sizes_to_try(work, machine, Loop.OUT_CHANNELS) == [10, 5, 4, 3, 2, 1]
    assert sizes_to_try(work, replace(machine, channel_multiple=4), Loop.OUT_CHANNELS) == [10, 8, 4]


def test_sizes_to_try_are_few_however_long_a_loop_is():
    work = convolution(channels=1, filters=2**40, size=1, kernel=1)
    sizes = sizes_to_try(work, TileMachine(capacity_bytes=1, bytes_per_cycle=1), Loop.OUT_CHANNELS)
    assert (sizes[0], sizes[1], sizes[-1]) == (2**40, 2**39, 1)
    assert len(sizes) <= 2 * MOST_PARTS and sizes == sorted(set(sizes), reverse=True)


def test_fifty_layers_take_less_than_half_a_second():
    chance = random.Random(0)
    layers = [
        convolution(8 * chance.randrange(1, 100), 8 * chance.randrange(1, 100), chance.choice((7, 14, 28, 56)), 1)
        for _ in range(50)
    ]
    machine = TileMachine(
        capacity_bytes=384 * 1024, bytes_per_cycle=12, unroll=((Loop.OUT_CHANNELS, 32), (Loop.IN_CHANNELS, 32))
    )
    choose_tiling.cache_clear()
    start = time.process_time()
    for layer in layers:
        choose_tiling(layer, machine)
    assert time.process_time() - start < 1.0  # 0.15 s alone; the tests' machine is busy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity_bytes": 0}, "tile machine: capacity_bytes = 0; must be 1 or more"),
        ({"bytes_per_cycle": 0.0}, r"tile machine: bytes_per_cycle = 0\.0; must be above 0"),
    ],
)
def test_a_machine_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        TileMachine(**{"capacity_bytes": 1, "bytes_per_cycle": 1.0, **change})


def test_sizes_come_as_an_array_in_the_order_of_the_loops():
    sizes = dict(zip(TILED, range(1, 7), strict=True))
    assert sizes_array([sizes]).tolist() == [[1], [2], [3], [4], [5], [6]]
