"""What lies in on-chip memory when: feature maps, rolling buffers of cascades and staged weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bitwright.hw_constraints.cost.ethos_u.figures import System, round_up
from bitwright.hw_constraints.cost.ethos_u.operations import FeatureMap, OpKind
from bitwright.hw_constraints.cost.ethos_u.step import Step

ALIGNMENT = 16
TICKS = 2  # an operation starts at an even tick; in the odd one behind it the next operation's weights may arrive


@dataclass(eq=False, kw_only=True)
class Range:
    """A piece of memory from its first to its last tick, both included.

    Attributes:
        size: bytes.
        first: tick.
        last: tick.
        tensors: feature maps that share it, none for weights.
    """

    size: int
    first: int
    last: int
    tensors: list[FeatureMap] = field(default_factory=list)

    def use(self, tick: int, duration: int = 1) -> None:
        """Extends it over a use."""
        self.first, self.last = min(self.first, tick), max(self.last, tick + duration)


@dataclass(kw_only=True)
class Lifetimes:
    """All ranges of a schedule.

    Attributes:
        ranges: in the order of their first use.
        ticks: of each step, by its position.
        end: one past the last tick.
    """

    ranges: list[Range]
    ticks: list[int]
    end: int

    def usage(self, without: frozenset[int] = frozenset()) -> list[int]:
        """Bytes in use at each tick, without some ranges (by `id`)."""
        used = [0] * (self.end + 1)
        for piece in self.ranges:
            if id(piece) not in without:
                for tick in range(piece.first, piece.last + 1):
                    used[tick] += piece.size
        return used


def lifetimes(steps: Sequence[Step], on_chip: set[int], system: System, rolling: dict[int, int]) -> Lifetimes:
    """The ranges of on-chip memory.

    Args:
        steps: the schedule.
        on_chip: feature maps that lie there, by `id`.
        system: the accelerator with its memories.
        rolling: bytes of the feature maps that are rolling buffers, by `id`.
    """
    ranges: list[Range] = []
    by_tensor: dict[int, Range] = {}
    ticks: list[int] = []
    cascades: dict[int, int] = {}
    now = 0

    def range_of(tensor: FeatureMap, tick: int) -> Range:
        if id(tensor) not in by_tensor:
            size = rolling.get(id(tensor), round_up(tensor.bytes, ALIGNMENT))
            by_tensor[id(tensor)] = Range(size=round_up(size, ALIGNMENT), first=tick, last=tick)
            by_tensor[id(tensor)].tensors.append(tensor)
            ranges.append(by_tensor[id(tensor)])
        return by_tensor[id(tensor)]

    for step in steps:
        tick = cascades.setdefault(step.cascade, now) if step.in_cascade else now
        shared = None if step.in_cascade else _reusable(step, on_chip)
        if shared is not None and id(step.op.written) not in by_tensor:
            piece = range_of(shared, tick)
            piece.tensors.append(step.op.written)
            by_tensor[id(step.op.written)] = piece
        ranges += _weight_ranges(step, tick)
        ticks.append(tick)
        for tensor in (*step.op.read, step.op.written):
            if id(tensor) in on_chip or id(tensor) in rolling:
                piece = range_of(tensor, tick)
                piece.use(tick)
                if tensor.is_input:
                    piece.use(0)
        if tick == now:
            now += TICKS
    for piece in ranges:
        if any(tensor.is_output for tensor in piece.tensors):
            piece.use(now)
    return Lifetimes(ranges=ranges, ticks=ticks, end=now + 2)


def _weight_ranges(step: Step, tick: int) -> list[Range]:
    """Each part of the buffer; the first one from the tick before, where it is filled ahead."""
    if step.buffer is None:
        return []
    parts = step.buffer.parts
    last_used = (len(step.buffer.slices) - 2) % len(parts)
    ranges = []
    for position, size in enumerate(parts):
        first, duration = tick, 1
        if position == 0 and step.buffer.ahead:
            first, duration = tick - 1, 2
        if position != last_used:
            duration -= 1
        first, last = max(first, 0), first + duration
        ranges.append(Range(size=round_up(size, ALIGNMENT), first=first, last=max(last, first)))
    return ranges


def _reusable(step: Step, on_chip: set[int]) -> FeatureMap | None:
    """An operand whose memory the results can take: read by this alone, of the same shape, element by element."""
    op, written = step.op, step.op.written
    one_to_one = op.kind is OpKind.ELEMENTWISE or (op.kind is OpKind.POOLING and op.window.is_unit and op.upscale == 1)
    if not one_to_one or id(written) not in on_chip or len(written.producers) != 1:
        return None
    for tensor in op.inputs:
        same = tensor.shape == written.shape and tensor.linear == written.linear
        once = len(tensor.consumers) == 1 and sum(other is tensor for other in op.read) == 1
        if same and once and id(tensor) in on_chip and not tensor.is_output:
            return tensor
    return None
