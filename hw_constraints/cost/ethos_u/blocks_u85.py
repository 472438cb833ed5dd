"""Blocks of Ethos-U85: a choice of micro-blocks, separate RAMs for inputs and accumulators, chaining buffers."""

from __future__ import annotations

import math

import numpy as np

from bitwright.hw_constraints.cost.ethos_u.block_search import (
    SPLIT_DEPTH,
    Best,
    Block,
    BlockQuestion,
    Traversal,
    depths,
    fetch_cost,
    ifm_area,
    input_area,
)
from bitwright.hw_constraints.cost.ethos_u.figures import Configuration, Hwc, round_up
from bitwright.hw_constraints.cost.ethos_u.operations import OpKind

GRANULE = 16  # channels by which the accumulators grow [V]
ACCUMULATOR_BYTES = 4
CHAINING_SLOTS = 6  # [V]
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


def _tile(size: int, granule: int, limit: int) -> int:
    """An even share of `size` of at most `limit`."""
    if size % limit == 0:
        return limit
    return max(round_up(size // (size // limit + 1), granule), granule)


def _spread(value: int, most: int, spare: int, needed: int) -> tuple[int, int]:
    """Gives spare room along one axis to another: (the other's size, what is left)."""
    excess = min(spare // needed, most // value)
    return (value * excess, spare // excess) if excess >= 2 else (value, spare)


def _elementwise_block(configuration: Configuration, question: BlockQuestion, micro: Hwc, granule: Hwc) -> Hwc:
    shape = tuple(map(round_up, question.ofm, granule))
    limit = tuple(map(min, shape, configuration.largest_block))
    units = configuration.output_ram // granule[2]
    bricks = configuration.chaining_ram // CHAINING_SLOTS // 16 // micro[0]
    rows = _tile(shape[0], granule[0], limit[0])
    wanted = max(_tile(shape[1], granule[1], min(units, limit[1])), granule[1])
    depth, columns = _spread(granule[2], limit[2], units, wanted)
    second = question.ifm2
    if second is not None and math.prod(second) > 1 and math.prod(question.ifm) > 1:
        narrow = [min(question.ifm[axis], second[axis]) < question.ofm[axis] for axis in range(3)]
        if narrow[2]:
            depth, columns = _tile(shape[2], granule[2], limit[2]), bricks
            if not narrow[0] and not narrow[1]:
                rows, columns = _spread(micro[0], limit[0], columns, wanted)
        elif narrow[0]:
            depth, columns = _spread(GRANULE, limit[2], bricks, wanted)
    block = tuple(map(round_up, (rows, columns, depth), granule))
    return block[0], block[1], block[2]


def _best_tile(size: int, granule: int, tile: int) -> int:
    """A width near `tile` whose last piece is largest."""
    if size % tile == 0:
        return tile
    even = max(round_up(size // (size // tile + 1), granule), granule)
    best, best_rest = tile, size % tile
    first = max(even - granule * 2, (even + 1) // 2, granule)
    for candidate in range(tile, first - 1, -granule):
        rest = size % candidate or candidate
        if rest > best_rest:
            best, best_rest = candidate, rest
    return best


def _by_aspect(aspect: float, area: int, granule: Hwc) -> tuple[int, int]:
    """Rows and columns of about `area` positions with the output's proportions."""
    columns = math.sqrt(area / aspect)
    rows = columns * aspect
    # An axis is one position long at least; the other gives what that takes.
    taken = min(rows, columns, 1.0)
    high, wide = (
        max(int(max(size * taken, 1.0)) // unit, 1) for size, unit in ((rows, granule[0]), (columns, granule[1]))
    )
    return high * granule[0], wide * granule[1]


def _area_fit(configuration: Configuration, question: BlockQuestion, micro: Hwc, granule: Hwc) -> Hwc:
    """The depthwise or pooling block that covers the output best, within accumulators and input buffer."""
    shape = tuple(map(round_up, question.ofm, granule))
    limit = tuple(map(min, shape, configuration.largest_block))
    accumulators = configuration.accumulator_ram // ACCUMULATOR_BYTES
    unit_accumulators = micro[0] * micro[1] * GRANULE
    deep = question.window.extent == (1, 1)
    area = shape[1] * (shape[2] if deep else shape[0])
    best, metric = (0, 0, 0), math.inf
    deepest = min(max(configuration.macs, accumulators // unit_accumulators), limit[2])
    for depth in range(GRANULE, deepest + 1, GRANULE):
        unit = _allocation(depth, micro)
        volume = math.prod(map(round_up, question.ifm, unit))
        found = _fit_at_depth(configuration, question, (shape, limit), depth, unit, volume, granule, unit_accumulators)
        if found is None:
            break
        rows, columns = found
        used = depth % unit[2] or unit[2]
        waste = 1.0 + (unit[2] - used) / unit[2] / 10
        fit = 1.0 + abs(1.0 - limit[2] / depth) / 10
        coverage = 1.0 + abs(1.0 - area / (columns * (depth if deep else rows)))
        if coverage * fit * waste < metric:
            metric, best = coverage * fit * waste, (rows, columns, depth)
            if depth >= shape[2] and columns >= shape[1] and rows >= shape[0]:
                return shape[0], shape[1], shape[2]
    return best


def _fit_at_depth(
    configuration: Configuration,
    question: BlockQuestion,
    extents: tuple[tuple[int, ...], tuple[int, ...]],
    depth: int,
    unit: Hwc,
    volume: int,
    granule: Hwc,
    unit_accumulators: int,
) -> tuple[int, int] | None:
    """Rows and columns at one depth; the area shrinks until accumulators and input both fit."""
    shape, limit = extents
    accumulators = configuration.accumulator_ram // ACCUMULATOR_BYTES
    fitted, previous, patience = accumulators, -1, 25
    while True:
        rows, columns = _by_aspect(shape[0] / shape[1], fitted // depth, granule)
        rows, columns = min(rows, limit[0]), min(columns, limit[1])
        positions = rows * columns
        if columns < shape[1]:
            columns = _best_tile(shape[1], granule[1], columns)
        rows = max(positions // columns // granule[0] * granule[0], granule[0])
        needed = rows * columns * depth
        ratio = accumulators / needed
        fed = min(math.prod(_ifm_block(question, (rows, columns, depth), unit, 0)), volume)
        input_ratio = configuration.ifm_ram / fed
        if ratio >= 1.0 and input_ratio >= 1.0:
            return rows, columns
        if needed == previous:
            patience -= 1
            if patience <= 0:
                input_ratio = 0.9
        previous = needed
        if input_ratio < 1.0 < ratio:
            fitted = min(fitted, needed)
        smaller = int(fitted // unit_accumulators * min(input_ratio, ratio)) * unit_accumulators
        if smaller == fitted:
            smaller = fitted - unit_accumulators
        if smaller < unit_accumulators:
            return None
        fitted = smaller


def _area_block(configuration: Configuration, question: BlockQuestion, micro: Hwc, granule: Hwc) -> tuple[Hwc, Hwc]:
    """`_area_fit`, made smaller where the input buffer could not hold another row in advance."""
    shape = tuple(map(round_up, question.ofm, granule))
    rows, columns, depth = _area_fit(configuration, question, micro, granule)
    force = 0
    while True:
        unit = _allocation(depth, micro)
        fed = _ifm_block(question, (rows, columns, depth), unit, 0)
        if columns >= shape[1] and rows >= shape[0] and depth >= shape[2]:
            break
        row = _ifm_block(question, (granule[0], columns, depth), unit, 0)
        if configuration.ifm_ram - math.prod(fed) >= math.prod(row):
            break
        if (rows != shape[0] or force & 2) and rows > granule[0]:
            rows -= granule[0]
        elif (depth > columns or force & 1) and depth > granule[2]:
            depth -= granule[2]
        elif (columns != shape[1] or force & 4) and columns > granule[1]:
            columns -= granule[1]
        elif force != 7:
            force = force << 1 | 1
        elif depth > granule[2]:
            depth = max(depth // 2, granule[2])
        else:
            break
    return (rows, columns, depth), fed


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
