"""Whether an operation's weights are staged on chip before they are read, and in which slices of channels.

Weights that are read more than once are cheaper to read from on-chip memory, if their transfer hides behind other work.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bitwright.hw_constraints.cost.ethos_u.block_search import SPLIT_DEPTH
from bitwright.hw_constraints.cost.ethos_u.costs import Costs, channel, depth_granule
from bitwright.hw_constraints.cost.ethos_u.cycles import Place, op_cycles
from bitwright.hw_constraints.cost.ethos_u.figures import Channel, ceil_div, round_up
from bitwright.hw_constraints.cost.ethos_u.step import Buffer, Performance, Step
from bitwright.hw_constraints.cost.ethos_u.traffic import copy_cycles, read_cycles

STARTUP_CYCLES = 1000  # that the compiler grants the first operation's transfer [V]


@dataclass(frozen=True, kw_only=True)
class Room:
    """What an operation finds when its weights are to be staged.

    Attributes:
        limit: bytes on chip that it may use.
        previous: the step before it; None at the start.
        consumer: the step that reads its results.
    """

    limit: int
    previous: Step | None
    consumer: Step | None


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """Reading all weights as often as needed, from where they lie and from on chip."""

    refetches: int
    stripes: int
    transfer: int
    unmoved: int
    buffered: int


def propose_buffer(costs: Costs, step: Step, reference: Step, room: Room) -> Step:
    """The step with its weights staged, where that is estimated to be no slower; else with them left off chip.

    Args:
        costs: of the system.
        step: with its slack, nothing staged.
        reference: the same operation in the schedule that this one is derived from.
        room: what it finds.
    """
    weights = step.weights
    if weights is None:
        return step
    system, configuration = costs.system, costs.configuration
    step = step.changed(transfer_cycles=copy_cycles(system.off_chip, system.on_chip, weights.bytes, configuration))
    plain = step.changed(buffer=None)
    reading = _reading(costs, step, reference)
    if reading.buffered >= reading.unmoved:
        return plain
    slack = room.previous.slack_cycles if room.previous else 0
    can_slice = not step.in_cascade  # a cascade's stripes read all weights again and again
    startup = room.previous is None and reading.refetches > 1 and _quick_start(step, reading)
    sliced = _method(costs, step, reference, room, reading, slack, can_slice, startup)
    if sliced is None:
        return plain
    slices = _slices(costs, step, reference, room, reading, slack) if sliced else (0, step.op.shape[2])
    if slices is None:
        return plain
    parts = _parts(step, slices, room.limit)
    if parts is None:
        return plain
    ahead = room.previous is not None and (not step.in_cascade or step.leads)
    free = room.previous.slack_bytes if room.previous else room.limit
    ahead = ahead and parts[0] < free
    usable = slack if ahead else STARTUP_CYCLES if startup else 0
    estimate = costs.performance(
        step, slices, staged=True, slack=usable, double=len(parts) == 2, input_on_chip=step.reads_rolling
    )
    if not _worth_it(costs, step, reference, room, reading, estimate, parts, len(slices) - 1, startup):
        return plain
    last = (len(slices) - 2) % len(parts)
    return step.changed(
        buffer=Buffer(parts=parts, ahead=ahead, slices=tuple(slices)),
        performance=estimate,
        slack_cycles=estimate.last_slice_cycles,
        slack_bytes=step.slack_bytes - parts[last],
    )


def _reading(costs: Costs, step: Step, reference: Step) -> _Reading:
    assert step.weights is not None
    stripes = step.stripes if step.in_cascade else 1
    refetches = reference.access.refetches * stripes
    by = channel(step.weights)
    size, configuration = step.weights.bytes, costs.configuration
    return _Reading(
        refetches=refetches,
        stripes=stripes,
        transfer=step.transfer_cycles,
        unmoved=read_cycles(costs.system.off_chip, by, size, configuration) * refetches,
        buffered=read_cycles(costs.system.on_chip, by, size, configuration) * refetches,
    )


def _smallest_transfer(step: Step, reading: _Reading) -> int:
    depth = step.op.shape[2]
    return int(reading.transfer * min(depth, SPLIT_DEPTH) / depth)


def _quick_start(step: Step, reading: _Reading) -> bool:
    smallest = _smallest_transfer(step, reading)
    return smallest < reading.unmoved / 10 or smallest <= STARTUP_CYCLES


def _method(
    costs: Costs,
    step: Step,
    reference: Step,
    room: Room,
    reading: _Reading,
    slack: int,
    can_slice: bool,
    startup: bool,
) -> bool | None:
    """True for slices, False for all weights at once, None for neither."""
    assert step.weights is not None
    compute_bound = reference.performance.run_cycles > reading.unmoved
    visible = max(reading.transfer - slack, 0)
    full = reading.buffered + visible
    if can_slice:
        expected = step.op.shape[2] // step.block.ofm[2]
        hidden = (
            room.previous is not None
            and (not step.in_cascade or step.leads)
            and _smallest_transfer(step, reading) < slack
            and reading.refetches > 1
        )
        return True if startup or full < reading.unmoved or expected > 2 or hidden else None
    covered = visible < reading.transfer / 20 or ceil_div(visible, reading.stripes) < STARTUP_CYCLES
    fits = step.weights.bytes <= room.limit
    return False if fits and (covered or startup) and (full < reading.unmoved or not compute_bound) else None


def _slices(
    costs: Costs, step: Step, reference: Step, room: Room, reading: _Reading, slack: int
) -> Sequence[int] | None:
    """Borders of the channels: a first slice that arrives ahead, then slices that arrive while one is worked on."""
    assert step.weights is not None
    depth, size, half = step.op.shape[2], step.weights.bytes, room.limit // 2
    compute_bound = reference.performance.run_cycles > reading.unmoved
    least = min(SPLIT_DEPTH / depth, 1.0)
    arrives = min(slack / reading.transfer, 1.0)
    aligned = math.floor(arrives / least) * least
    ratio = 1.0 if 1.0 - aligned < least / 2 else arrives
    if compute_bound and 0.5 < ratio < 1.0:
        ratio = min(max(round_up(depth // 2, SPLIT_DEPTH) / depth, 0.5), 1.0)
    ratio = min(max(ratio, least), min(half / size, 1.0))
    if ratio >= 1.0:
        return (0, depth)
    granule = depth_granule(step.block, is_u85=costs.configuration.is_u85)
    block = step.block.ofm[2]
    first = max(int(depth * ratio) // granule * granule, SPLIT_DEPTH)
    each = 0
    if first < depth:
        shape = (step.op.shape[0], step.op.shape[1], first)
        operands = costs.operands(step.op, shape, step.op.input_shapes[0], staged=True)
        ahead = op_cycles(step.op, step.block, operands, costs.configuration, Place.FIRST)
        each = round_up(max(depth * ahead // reading.transfer, SPLIT_DEPTH), block)
        if int(each / depth * size) > half:
            each = int(half / size * depth)
    slices: list[int] = [0, depth]
    while each:
        each = max(each // (block if each > block else granule) * (block if each > block else granule), granule)
        slices = [0, *range(first, depth, each), depth]
        largest = max(step.weights.slice_bytes(a, b) for a, b in itertools.pairwise(slices))
        if largest <= half or (first == SPLIT_DEPTH and each == granule):
            break
        if each > first:
            each = round_up(each // 2, granule)
        else:
            first = round_up(first // 2, SPLIT_DEPTH)
    if len(slices) > 3 and each / round_up(each, block) < 0.3 and compute_bound:
        return None
    return slices


def _parts(step: Step, slices: Sequence[int], limit: int) -> tuple[int, ...] | None:
    """Two alternating buffers where there are several slices and both fit, else one."""
    assert step.weights is not None
    sizes = [step.weights.slice_bytes(a, b) for a, b in itertools.pairwise(slices)]
    even, odd = max(sizes[::2]), max(sizes[1::2], default=0)
    if even + odd <= limit and max(sizes) < sum(sizes):
        return even, odd
    return (max(sizes),) if max(sizes) <= limit else None


def _worth_it(
    costs: Costs,
    step: Step,
    reference: Step,
    room: Room,
    reading: _Reading,
    estimate: Performance,
    parts: tuple[int, ...],
    slices: int,
    startup: bool,
) -> bool:
    """Whether staging weights is estimated no slower than reading them where they lie.

    Where feature maps lie off chip, on-chip memory could hold the input instead: whichever gains more.
    """
    before, system = reference.performance, costs.system
    ifm_cycles = estimate.ifm_read_cycles
    movable = bool(step.op.inputs[0].producers) and not step.reads_rolling and system.spills
    if movable:
        both = estimate.ifm_bytes + sum(parts) <= room.limit
        by = Channel.IFM
        staged = read_cycles(system.on_chip, by, before.ifm_read_bytes, costs.configuration)
        with_input = max(before.run_cycles, before.weight_read_cycles, staged)
        with_weights = max(estimate.full_cycles, estimate.weight_read_cycles, estimate.ifm_read_cycles)
        free = room.previous.slack_bytes if room.previous else 0
        if (
            not both
            and estimate.ifm_bytes < free
            and with_input < with_weights
            and with_input < estimate.ifm_read_cycles
        ):
            return False
        if _leave_room_for_next(step, estimate, room, sum(parts)):
            return False
        if both:
            ifm_cycles = read_cycles(system.on_chip, by, estimate.ifm_read_bytes, costs.configuration)
    original = max(before.run_cycles, before.weight_read_cycles, ifm_cycles)
    new = max(estimate.full_cycles, estimate.weight_read_cycles, ifm_cycles)
    if before.run_cycles > reading.unmoved:
        if estimate.visible_cycles // slices < STARTUP_CYCLES:
            new -= estimate.visible_cycles
        if slices > 1 and estimate.full_cycles == new and startup:
            new -= slices * (STARTUP_CYCLES // 2)
    once = reading.refetches == 1 and reading.transfer + estimate.weight_read_cycles > original
    return original >= new and not once


def _leave_room_for_next(step: Step, estimate: Performance, room: Room, size: int) -> bool:
    """Whether the next operation's input, this one's output, gains more from the room."""
    following = room.consumer
    if following is None or room.previous is None or following.performance.compute_bound:
        return False
    ahead = following.performance
    if ahead.ifm_ratio <= 2.0 or ahead.weight_read_cycles <= 0 or ahead.ifm_bytes >= step.slack_bytes:
        return False
    if ahead.ifm_bytes + estimate.ifm_bytes + size <= room.previous.slack_bytes:
        return False
    return step.performance.compute_bound or ahead.ifm_read_cycles > estimate.ifm_read_cycles
