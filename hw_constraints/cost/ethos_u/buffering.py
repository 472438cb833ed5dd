"""Whether an operation's weights are staged on chip before they are read, and in which slices of channels.

Weights that are read more than once are cheaper to read from on-chip memory, if their transfer hides behind other work.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from bitwright.hw_constraints.cost.ethos_u.block_search import SPLIT_DEPTH
from bitwright.hw_constraints.cost.ethos_u.costs import Costs, channel, depth_granule
from bitwright.hw_constraints.cost.ethos_u.cycles import Place, op_cycles
from bitwright.hw_constraints.cost.ethos_u.figures import Channel, Memory, ceil_div, round_up
from bitwright.hw_constraints.cost.ethos_u.step import Buffer, Performance, Step
from bitwright.hw_constraints.cost.ethos_u.traffic import copy_cycles, read_cycles
from bitwright.hw_constraints.cost.ethos_u.weights import EncodedWeights

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
    off_chip, on_chip = costs.system.off_chip, costs.system.on_chip
    step = step.changed(transfer_cycles=copy_cycles(off_chip, on_chip, weights.bytes, costs.configuration))
    plain = step.changed(buffer=None)
    case = _Case(costs=costs, step=step, weights=weights, reference=reference, room=room)
    slices = _slices(case) if _is_promising(case) else None
    parts = _parts(case, slices) if slices is not None else None
    if slices is None or parts is None:
        return plain
    ahead = case.may_arrive_ahead and parts[0] < case.free_bytes
    slack = case.slack if ahead else STARTUP_CYCLES if case.starts_up else 0
    estimate = costs.performance(
        step, slices, staged=True, slack=slack, double=len(parts) == 2, input_on_chip=step.reads_rolling
    )
    if not _pays(case, estimate, sum(parts), len(slices) - 1):
        return plain
    read_last = parts[(len(slices) - 2) % len(parts)]
    return step.changed(
        buffer=Buffer(parts=parts, ahead=ahead, slices=tuple(slices)),
        performance=estimate,
        slack_cycles=estimate.last_slice_cycles,
        slack_bytes=step.slack_bytes - read_last,
    )


@dataclass(frozen=True, kw_only=True)
class _Case:
    """The quantities that decide about staging: cycles, if nothing else is said.

    Attributes:
        costs: of the system.
        step: with the cycles of its weights' transfer.
        weights: of the step.
        reference: the same operation, nothing changed.
        room: what the step finds.
    """

    costs: Costs
    step: Step
    weights: EncodedWeights
    reference: Step
    room: Room

    @cached_property
    def stripes(self) -> int:
        """How often all weights are read because of a cascade."""
        return self.step.stripes if self.step.in_cascade else 1

    @cached_property
    def refetches(self) -> int:
        """How often they are read altogether."""
        return self.reference.access.refetches * self.stripes

    @cached_property
    def unmoved(self) -> int:
        """Reading them from where they lie, as often as needed."""
        return self._reading(self.costs.system.off_chip)

    @cached_property
    def buffered(self) -> int:
        """Reading them from on chip, as often as needed."""
        return self._reading(self.costs.system.on_chip)

    def _reading(self, memory: Memory) -> int:
        by = channel(self.weights)
        return read_cycles(memory, by, self.weights.bytes, self.costs.configuration) * self.refetches

    @cached_property
    def compute_bound(self) -> bool:
        """Whether computing takes longer than reading the weights where they lie."""
        return self.reference.performance.run_cycles > self.unmoved

    @cached_property
    def slack(self) -> int:
        """Under which a transfer hides: what the step before leaves."""
        return self.room.previous.slack_cycles if self.room.previous else 0

    @cached_property
    def free_bytes(self) -> int:
        """On chip, while the step before still runs."""
        return self.room.previous.slack_bytes if self.room.previous else self.room.limit

    @cached_property
    def may_arrive_ahead(self) -> bool:
        """Whether a step outside of this one's cascade runs before it."""
        return self.room.previous is not None and not self.step.reads_rolling

    @cached_property
    def visible(self) -> int:
        """Of the transfer of all weights, what the slack does not cover."""
        return max(self.step.transfer_cycles - self.slack, 0)

    @cached_property
    def least_transfer(self) -> int:
        """Transfer of the smallest slice."""
        depth = self.step.op.shape[2]
        return int(self.step.transfer_cycles * min(depth, SPLIT_DEPTH) / depth)

    @cached_property
    def starts_up(self) -> bool:
        """Whether it is the first step and a first slice arrives soon enough to be read several times."""
        soon = self.least_transfer < self.unmoved / 10 or self.least_transfer <= STARTUP_CYCLES
        return self.room.previous is None and self.refetches > 1 and soon


def _is_promising(case: _Case) -> bool:
    """Whether staging could gain anything, before it is known how.

    A cascade reads all weights for each stripe and has to hold them all: they have to fit, to arrive almost unnoticed,
    and to gain unless computing hides the reading anyway. Outside, slices have to gain as a whole, or to be more than
    two blocks of channels, or their first one has to hide.
    """
    if case.buffered >= case.unmoved:
        return False
    step = case.step
    gains = case.buffered + case.visible < case.unmoved
    if step.in_cascade:
        brief = ceil_div(case.visible, case.stripes) < STARTUP_CYCLES
        unnoticed = case.starts_up or brief or case.visible < step.transfer_cycles / 20
        return case.weights.bytes <= case.room.limit and unnoticed and (gains or not case.compute_bound)
    many = step.op.shape[2] // step.block.ofm[2] > 2
    hides = case.room.previous is not None and case.refetches > 1 and case.least_transfer < case.slack
    return gains or many or hides or case.starts_up


def _slices(case: _Case) -> Sequence[int] | None:
    """Borders of the channels: a first slice that arrives ahead, then slices that arrive while one is worked on.

    From what would hide the transfer best, the larger of the two sizes is halved until two slices fit the room. None
    where computing would hide the reading, but not in blocks that are filled to less than three tenths.
    """
    depth, half = case.step.op.shape[2], case.room.limit // 2
    share = _share_ahead(case)
    if case.step.in_cascade or share >= 1.0:
        return 0, depth
    granule, block = depth_granule(case.step.block, is_u85=case.costs.configuration.is_u85), case.step.block.ofm[2]
    first = max(int(depth * share) // granule * granule, SPLIT_DEPTH)
    if first >= depth:
        return 0, depth
    slices: list[int] = []
    for ahead, each in _halvings(first, _hidden_depth(case, first), granule, block):
        slices = [0, *range(ahead, depth, each), depth]
        if max(case.weights.slice_bytes(a, b) for a, b in itertools.pairwise(slices)) <= half:
            break
    crumbs = len(slices) > 3 and each / round_up(each, block) < 0.3
    return None if crumbs and case.compute_bound else slices


def _share_ahead(case: _Case) -> float:
    """The share of the channels in the first slice: what arrives under the slack, within 16 channels and half the room.

    All where less than half of the least slice would be missing; half where computing hides the rest.
    """
    depth = case.step.op.shape[2]
    least = min(SPLIT_DEPTH / depth, 1.0)
    share = min(case.slack / case.step.transfer_cycles, 1.0)
    if 1.0 - math.floor(share / least) * least < least / 2:
        share = 1.0
    elif case.compute_bound and 0.5 < share < 1.0:
        share = min(max(round_up(depth // 2, SPLIT_DEPTH) / depth, 0.5), 1.0)
    return min(max(share, least), case.room.limit // 2 / case.weights.bytes, 1.0)


def _hidden_depth(case: _Case, first: int) -> int:
    """Channels that arrive while the first slice is computed, in whole blocks; fewer where half the room is less."""
    op, block, half = case.step.op, case.step.block, case.room.limit // 2
    operands = case.costs.operands(op, (op.shape[0], op.shape[1], first), op.input_shapes[0], staged=True)
    cycles = op_cycles(op, block, operands, case.costs.configuration, Place.FIRST)
    arriving = max(op.shape[2] * cycles // case.step.transfer_cycles, SPLIT_DEPTH)
    channels, size = round_up(arriving, block.ofm[2]), case.weights.bytes
    return channels if int(channels / op.shape[2] * size) <= half else int(half / size * op.shape[2])


def _halvings(first: int, each: int, granule: int, block: int) -> Iterator[tuple[int, int]]:
    """Channels of the first slice and of the others: as given, then with the larger halved, down to the least of both.

    The others come in whole blocks, below one block in granules.
    """
    while True:
        unit = block if each > block else granule
        each = max(each // unit * unit, granule)
        yield first, each
        if (first, each) == (SPLIT_DEPTH, granule):
            return
        if each > first:
            each = round_up(each // 2, granule)
        else:
            first = round_up(first // 2, SPLIT_DEPTH)


def _parts(case: _Case, slices: Sequence[int]) -> tuple[int, ...] | None:
    """Two alternating buffers where there are several slices and both fit, else one; None where not even that fits."""
    sizes = [case.weights.slice_bytes(a, b) for a, b in itertools.pairwise(slices)]
    pair, one = (max(sizes[::2]), max(sizes[1::2], default=0)), max(sizes)
    if len(sizes) > 1 and sum(pair) <= case.room.limit:
        return pair
    return (one,) if one <= case.room.limit else None


def _pays(case: _Case, estimate: Performance, size: int, slices: int) -> bool:
    """Whether staging weights is estimated no slower than reading them where they lie.

    Either way takes as long as the longest of computing, reading weights and reading the input. Where feature maps lie
    off chip, on-chip memory could hold an input instead, this step's or the next one's: whichever gains more.
    """
    before, system, ifm_cycles = case.reference.performance, case.costs.system, estimate.ifm_read_cycles
    if case.step.op.inputs[0].producers and not case.step.reads_rolling and system.spills:
        both = estimate.ifm_bytes + size <= case.room.limit
        if (not both and _input_gains_more(case, estimate)) or _next_input_gains_more(case, estimate, size):
            return False
        if both:
            ifm_cycles = read_cycles(system.on_chip, Channel.IFM, estimate.ifm_read_bytes, case.costs.configuration)
    if case.refetches == 1 and case.step.transfer_cycles + estimate.weight_read_cycles > max(
        before.run_cycles, before.weight_read_cycles, ifm_cycles
    ):
        return False
    staged = max(estimate.full_cycles, estimate.weight_read_cycles, ifm_cycles)
    if case.compute_bound:
        short = estimate.visible_cycles // slices < STARTUP_CYCLES  # such waits are forgiven
        staged -= estimate.visible_cycles if short else 0
        forgiven = case.starts_up and slices > 1 and staged == estimate.full_cycles
        staged -= slices * (STARTUP_CYCLES // 2) if forgiven else 0
    return max(before.run_cycles, before.weight_read_cycles, ifm_cycles) >= staged


def _input_gains_more(case: _Case, estimate: Performance) -> bool:
    """Whether the input fits on chip now, and the step is faster with it there than with the weights."""
    before = case.reference.performance
    staged = read_cycles(case.costs.system.on_chip, Channel.IFM, before.ifm_read_bytes, case.costs.configuration)
    with_input = max(before.run_cycles, before.weight_read_cycles, staged)
    with_weights = max(estimate.full_cycles, estimate.weight_read_cycles, estimate.ifm_read_cycles)
    free = case.room.previous.slack_bytes if case.room.previous else 0
    return estimate.ifm_bytes < free and with_input < min(with_weights, estimate.ifm_read_cycles)


def _next_input_gains_more(case: _Case, estimate: Performance, size: int) -> bool:
    """Whether the next step is bound by an input that would fit instead of the weights, but not beside them."""
    if case.room.consumer is None or case.room.previous is None:
        return False
    following = case.room.consumer.performance
    bound = not following.compute_bound and following.weight_read_cycles > 0 and following.ifm_ratio > 2.0
    fits = following.ifm_bytes < case.step.slack_bytes
    beside = following.ifm_bytes + estimate.ifm_bytes + size <= case.room.previous.slack_bytes
    more = case.step.performance.compute_bound or following.ifm_read_cycles > estimate.ifm_read_cycles
    return bound and fits and not beside and more
