"""Blocks of Ethos-U85: a choice of micro-blocks, separate RAMs for inputs and accumulators, chaining buffers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.cost.ethos_u.block_search import (
    SPLIT_DEPTH,
    Best,
    Block,
    BlockQuestion,
    Granules,
    Traversal,
    depths,
    fetch_cost,
    ifm_area,
    input_area,
)
from bitwright.hw_constraints.cost.ethos_u.figures import BRICK, Configuration, Hwc, ceil_div, round_up
from bitwright.hw_constraints.cost.ethos_u.operations import OpKind

GRANULE = 16  # channels by which the accumulators grow [V]
ACCUMULATOR_BYTES = 4
CHAINING_SLOTS = 6  # [V]
STALLS = 25  # cuts of a budget without effect that are put up with [V]
# Input channels are buffered in units of rows x columns x channels that shrink as the block gets deeper: up to 16, up
# to 32, and more channels [V, U85-1024].
_ALLOCATION = {
    (2, 2, 32): ((2, 4, 16), (2, 2, 32), (1, 2, 64)),
    (2, 4, 16): ((2, 4, 16), (2, 2, 32), (1, 2, 64)),
    (1, 4, 32): ((2, 4, 16), (1, 4, 32), (1, 2, 64)),
}
_ONLY_CONVOLUTIONS = ((2, 2, 32), (1, 4, 32))  # these micro-blocks serve convolutions and elementwise operations alone


def choose_u85_block(configuration: Configuration, question: BlockQuestion) -> Block:
    """The block of an operation on U85."""
    ifm = max((question.ifm, question.ifm2 or question.ifm), key=math.prod)
    kernel_first = question.kind is OpKind.CONVOLUTION and _prefers_kernel(ifm[2], question.window.taps)
    micro = _micro_block(configuration, question)
    granule = (micro[0], micro[1], GRANULE)
    if question.kind is OpKind.ELEMENTWISE:
        block = _elementwise_block(configuration, question, micro, granule)
        return Block(ofm=block, ifm=block, micro=micro, traversal=Traversal.DEPTH_FIRST)
    if question.kind is OpKind.DEPTHWISE or (question.kind is OpKind.POOLING and question.type != "copy"):
        ofm, fed = _area_block(configuration, question, micro, granule)
        depthwise = question.kind is OpKind.DEPTHWISE
        return Block(
            ofm=ofm, ifm=fed, micro=micro, traversal=Traversal.DEPTHWISE if depthwise else Traversal.DEPTH_FIRST
        )
    return _searched_block(configuration, question, ifm, micro, granule, kernel_first)


def _prefers_kernel(depth: int, taps: int) -> bool:
    rounded = taps // 5 * 5 + max(taps % 5, 2)
    return depth / round_up(depth, 16) * (taps / rounded) >= depth / round_up(depth, 64)


def _micro_block(configuration: Configuration, question: BlockQuestion) -> Hwc:
    """The allowed micro-block that wastes least, the first of equal ones."""
    wide = question.kind in (OpKind.CONVOLUTION, OpKind.ELEMENTWISE)
    allowed = [block for block in configuration.micro_blocks if wide or block not in _ONLY_CONVOLUTIONS]
    return min(allowed, key=lambda block: math.prod(map(round_up, question.ofm, block)))


def _allocation(depth: int, micro: Hwc) -> Hwc:
    """Rows, columns and channels by which the input buffer is filled, for int8."""
    return _ALLOCATION[micro][0 if depth <= 16 else 1 if depth <= 32 else 2]


def _ifm_block(question: BlockQuestion, ofm: Hwc, unit: Hwc, depth: int) -> Hwc:
    rows, columns = input_area(question.window, ofm[0], ofm[1])
    return round_up(rows, unit[0]), round_up(columns, unit[1]), round_up(depth or ofm[2], unit[2])


def _even_share(size: int, granule: int, most: int) -> int:
    """What each of the fewest pieces of at most `most` gets."""
    return round_up(size // ceil_div(size, most), granule)


def _dealt(room: int, wanted: int, base: int, most: int) -> tuple[int, int]:
    """Two sides that fill `room`: as often `base` as leaves `wanted` of the other, at most `most`; and that other."""
    times = max(min(room // wanted, most // base), 1)
    return base * times, room // times


def _elementwise_block(configuration: Configuration, question: BlockQuestion, micro: Hwc, granule: Hwc) -> Hwc:
    """An elementwise block fills one buffer with whole rows of an even share of the columns.

    The buffer is the output's; where an operand is repeated along rows or channels, it is a slot of the chaining
    buffers. What is left beyond one row goes to channels; to rows where channels, and they alone, are repeated.
    """
    shape = tuple(map(round_up, question.ofm, granule))
    limit = tuple(map(min, shape, configuration.largest_block))
    positions = configuration.output_ram // granule[2]
    slots = configuration.chaining_ram // CHAINING_SLOTS // BRICK // micro[0]
    columns = _even_share(shape[1], granule[1], min(positions, limit[1]))
    repeated = _repeated(question)
    if repeated[2]:
        depth = _even_share(shape[2], granule[2], limit[2])
        if any(repeated[:2]):
            block = _even_share(shape[0], granule[0], limit[0]), slots, depth
        else:
            block = *_dealt(slots, columns, micro[0], limit[0]), depth
    else:
        depth, wide = _dealt(slots if repeated[0] else positions, columns, granule[2], limit[2])
        block = _even_share(shape[0], granule[0], limit[0]), wide, depth
    rows, wide, depth = map(round_up, block, granule)
    return rows, wide, depth


def _repeated(question: BlockQuestion) -> list[bool]:
    """Along which axes an operand is repeated; a scalar lies in a register and does not count."""
    first, second = question.ifm, question.ifm2
    if second is None or math.prod(first) == 1 or math.prod(second) == 1:
        return [False] * 3
    return [min(one, other) < result for one, other, result in zip(first, second, question.ofm, strict=True)]


def _last_piece_largest(size: int, granule: int, widest: int) -> int:
    """The width, from `widest` down to a little under an even share, whose last piece is largest; the widest of equals.

    A width that divides `size` leaves a last piece of its own width, so that `widest` wins where it does.
    """
    even = _even_share(size, granule, widest)
    narrowest = max(even - granule * 2, (even + 1) // 2, granule)
    return max(range(widest, narrowest - 1, -granule), key=lambda width: (size - 1) % width + 1)


@dataclass(frozen=True, kw_only=True)
class _Areas:
    """What every budget of accumulators would buy at every depth; arrays of depths × budgets.

    Attributes:
        rows: of the block.
        columns: of the block.
        taken: budget that the block really takes; it differs where a side is rounded or at its limit.
        results: accumulators over those that the block takes; below 1 it does not fit.
        inputs: bytes of the input buffer over those of the block's input.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    taken: npt.NDArray[np.int64]
    results: npt.NDArray[np.float64]
    inputs: npt.NDArray[np.float64]

    def at(self, budget: npt.NDArray[np.int64]) -> _Areas:
        """What one budget at each depth [D, 1] buys."""
        return _Areas(**{name: np.take_along_axis(values, budget, axis=1) for name, values in vars(self).items()})

    @property
    def fit(self) -> npt.NDArray[np.bool_]:
        """Where the block fits both RAMs."""
        return np.asarray((self.results >= 1.0) & (self.inputs >= 1.0))


def _areas(
    configuration: Configuration, question: BlockQuestion, granule: Hwc, depth: npt.NDArray[np.int64], units: Granules
) -> _Areas:
    """Blocks with the output's proportions for budgets of 0, 1, 2, … granules of accumulators, at each depth [D, 1]."""
    shape = tuple(map(round_up, question.ofm, granule))
    limit = tuple(map(min, shape, configuration.largest_block))
    accumulators = configuration.accumulator_ram // ACCUMULATOR_BYTES
    volume = math.prod(granule)
    budget = np.arange(accumulators // volume + 1)
    aspect = shape[0] / shape[1]
    wide = np.sqrt(budget * volume // depth / aspect)
    high = wide * aspect
    # A side is one position long at least; the other one gives what that takes.
    given = np.minimum(np.minimum(high, wide), 1.0)
    rows, columns = (
        np.clip((side * given).astype(np.int64) // unit * unit, unit, most)
        for side, unit, most in ((high, granule[0], limit[0]), (wide, granule[1], limit[1]))
    )
    positions = rows * columns
    widths = [_last_piece_largest(shape[1], granule[1], w) for w in range(granule[1], limit[1] + 1, granule[1])]
    columns = np.array(widths)[columns // granule[1] - 1]
    rows = np.maximum(positions // columns // granule[0] * granule[0], granule[0])
    high_in, wide_in = ifm_area(question, rows, columns, units, 1)
    whole = math.prod(-(-size // unit) * unit for size, unit in zip(question.ifm, units, strict=True))
    fed = np.minimum(high_in * wide_in * (-(-depth // units[2]) * units[2]), whole)
    return _Areas(
        rows=rows,
        columns=columns,
        taken=rows * columns * depth // volume,
        results=accumulators / (rows * columns * depth),
        inputs=configuration.ifm_ram / fed,
    )


def _affordable(areas: _Areas) -> npt.NDArray[np.int64]:
    """The budget at each depth [D, 1] whose block fits, 0 without one; reached from the largest by proportional cuts.

    A cut leaves the share of the budget that the scarcer RAM can hold, reckoned from what the block takes where that is
    less and only its input does not fit. A block that came of the cut before as well is a stall; from the 25th on a
    stall leaves nine tenths, whatever the input buffer's share.
    """
    budget = np.full((areas.rows.shape[0], 1), areas.rows.shape[1] - 1)
    before, stalls = np.full_like(budget, -1), np.zeros_like(budget)
    while True:
        bought = areas.at(budget)
        settled = bought.fit | (budget == 0)
        if settled.all():
            return budget
        stalled = bought.taken == before
        stalls, before = stalls + stalled, bought.taken
        inputs = np.where(stalled & (stalls >= STALLS), 0.9, bought.inputs)
        base = np.where((inputs < 1.0) & (bought.results > 1.0), np.minimum(budget, bought.taken), budget)
        cut = (base * np.minimum(inputs, bought.results)).astype(np.int64)
        budget = np.where(settled, budget, np.minimum(cut, budget - 1))


def _area_fit(configuration: Configuration, question: BlockQuestion, micro: Hwc, granule: Hwc) -> Hwc:
    """The depthwise or pooling block that covers the output best, within accumulators and input buffer.

    Each depth has one candidate (see `_affordable`); depths from the first one without on are out. The least product of
    three penalties wins, the shallowest of equals: how far the block's area is from the output's, a tenth of how far
    its depth is from the largest, and a tenth of what the last unit of input channels leaves unused.
    """
    shape = tuple(map(round_up, question.ofm, granule))
    largest = min(shape[2], configuration.largest_block[2])
    deepest = min(
        max(configuration.macs, configuration.accumulator_ram // ACCUMULATOR_BYTES // math.prod(granule)), largest
    )
    depth = np.arange(GRANULE, deepest + 1, GRANULE)[:, None]
    unit = np.array([_allocation(int(each), micro) for each in depth[:, 0]])
    units = unit[:, :1], unit[:, 1:2], unit[:, 2:]
    areas = _areas(configuration, question, granule, depth, units)
    budget = _affordable(areas)
    candidates = int(np.argmin(np.append(budget[:, 0] > 0, False)))
    if not candidates:
        return 0, 0, 0
    bought = areas.at(budget)
    rows, columns = bought.rows[:candidates], bought.columns[:candidates]
    depth, channels = depth[:candidates], units[2][:candidates]
    by_depth = question.window.extent == (1, 1)  # single taps: columns × channels count as the area
    area = shape[1] * (shape[2] if by_depth else shape[0])
    unused = 1.0 + (-depth % channels) / channels / 10
    fit = 1.0 + np.abs(1.0 - largest / depth) / 10
    coverage = 1.0 + np.abs(1.0 - area / (columns * (depth if by_depth else rows)))
    best = int(np.argmin(coverage * fit * unused))
    return int(rows[best, 0]), int(columns[best, 0]), int(depth[best, 0])


def _area_block(configuration: Configuration, question: BlockQuestion, micro: Hwc, granule: Hwc) -> tuple[Hwc, Hwc]:
    """`_area_fit`, made smaller where the input buffer could not hold another row of blocks' input in advance."""
    shape = tuple(map(round_up, question.ofm, granule))
    block: Hwc | None = _area_fit(configuration, question, micro, granule)
    while block is not None:
        kept, unit = block, _allocation(block[2], micro)
        fed = _ifm_block(question, kept, unit, 0)
        row = _ifm_block(question, (granule[0], kept[1], kept[2]), unit, 0)
        whole = all(size >= full for size, full in zip(kept, shape, strict=True))
        roomy = math.prod(fed) + math.prod(row) <= configuration.ifm_ram
        block = None if whole or roomy else _one_granule_less(kept, shape, granule)
    return kept, fed


def _one_granule_less(block: Hwc, shape: tuple[int, ...], granule: Hwc) -> Hwc | None:
    """The next smaller block: an axis that is cut already gives first, one that spans the output last."""
    rows, columns, depth = block
    preferences = (
        (0, rows != shape[0]),
        (2, depth > columns),
        (1, columns != shape[1]),
        (2, True),
        (0, True),
        (1, True),
    )
    for axis, gives in preferences:
        if gives and block[axis] > granule[axis]:
            less = [size - (granule[axis] if axis == position else 0) for position, size in enumerate(block)]
            return less[0], less[1], less[2]
    return None


def _searched_block(
    configuration: Configuration,
    question: BlockQuestion,
    ifm: Hwc,
    micro: Hwc,
    granule: Hwc,
    kernel_first: bool,
) -> Block:
    """Convolutions: the block with the least traffic, of which two fit the RAMs (else one)."""
    window, same_depth = question.window, question.kind is not OpKind.CONVOLUTION
    step = tuple(map(max, micro, granule))
    end = tuple(
        round_up(max(min(question.ofm[axis], configuration.largest_block[axis]), step[axis]), micro[axis])
        for axis in range(3)
    )
    if question.kind is OpKind.RESIZE:
        step, end = (1, step[1], step[2]), (1, end[1], 16)
    ifm_depth = 16 if kernel_first else 64
    whole = question.kind is OpKind.RESIZE or (
        question.kind is OpKind.CONVOLUTION and window.extent == ifm[:2] and question.ofm[:2] == (1, 1)
    )
    rows, columns = np.meshgrid(
        np.arange(step[0], end[0] + 1, step[0]), np.arange(step[1], end[1] + 1, step[1]), indexing="ij"
    )
    best = Best(ifm)
    for copies in (2, 1):
        for depth in depths(max(micro[2], min(end[2], SPLIT_DEPTH)), end[2], question.ofm[2], micro[2]):
            block_depth = depth if same_depth else ifm_depth
            unit = _allocation(block_depth, micro)
            area = ifm_area(question, rows, columns, unit, question.upscale)
            held = round_up(depth if same_depth else min(round_up(block_depth, unit[2]), ifm[2]), unit[2])
            fits = area[0] * area[1] * held * copies <= configuration.ifm_ram
            accumulators = rows * columns * round_up(depth, GRANULE) * ACCUMULATOR_BYTES * copies
            fits &= (accumulators <= configuration.accumulator_ram) | (question.kind is OpKind.RESIZE)
            fits |= question.kind is OpKind.RESIZE
            cost = fetch_cost(question, ifm, rows, columns, depth, area, same_depth)
            if whole:
                cost = np.float32(math.prod(question.ofm)) / (rows * columns * depth).astype(np.float32)
            kept = area[0] * area[1] * round_up(block_depth, unit[2])
            cost = np.where(math.prod(ifm) < kept * 2, cost / np.float32(2), cost)
            best.offer(np.where(fits, cost, np.inf), rows, columns, depth, area, block_depth)
        if not math.isinf(best.cost):
            break
    traversal = Traversal.KERNEL_FIRST if kernel_first else Traversal.DEPTH_FIRST
    return Block(ofm=best.ofm, ifm=best.ifm, micro=micro, traversal=traversal)
