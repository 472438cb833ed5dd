"""Cascades: neighbouring operations that run stripe by stripe, so that only a few rows between them are ever stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bitwright.hw_constraints.cost.ethos_u.buffering import Room, propose_buffer
from bitwright.hw_constraints.cost.ethos_u.costs import Costs
from bitwright.hw_constraints.cost.ethos_u.figures import BRICK, round_up
from bitwright.hw_constraints.cost.ethos_u.operations import FeatureMap, NpuOp, OpKind
from bitwright.hw_constraints.cost.ethos_u.step import Buffer, Step


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """Operations `first … last` in stripes.

    Attributes:
        first: index of the first operation.
        last: index of the last one.
        bytes: rolling buffers and staged weights.
        rolling: bytes of each feature map between them, by `id`; 0 where it takes the place of the one before.
    """

    first: int
    last: int
    bytes: int
    rolling: dict[int, int] = field(default_factory=dict)


Steps = dict[int, Step]


def narrowest(costs: Costs, operations: Sequence[NpuOp]) -> Steps:
    """Every operation in the fewest rows that its successor's stride takes."""
    steps, rows = {}, 1
    for op in reversed(operations):
        steps[op.index] = costs.step(op, round_up(rows, op.upscale) if rows < op.shape[0] else rows)
        rows = op.window.stride[0]
    return steps


def build_cascades(operations: Sequence[NpuOp], narrow: Steps, whole: Steps, limit: int) -> tuple[Steps, list[Cascade]]:
    """Cascades from front to back, where an operation's feature maps do not fit on chip whole.

    Args:
        operations: neighbours, in order.
        narrow: them in stripes.
        whole: them uncut; what stays outside of cascades runs so.
        limit: bytes on chip.
    """
    chosen: Steps = {}
    cascades: list[Cascade] = []
    known = {op.index for op in operations}
    for op in operations:
        if op.index in chosen:
            continue
        cascade = _longest_cascade(op, narrow, known, limit)
        if cascade is None:
            chosen[op.index] = whole[op.index]
            continue
        for index in range(cascade.first, cascade.last + 1):
            chosen[index] = narrow[index].changed(cascade=cascade.last, leads=index == cascade.first)
        cascades.append(cascade)
    return chosen, cascades


def _longest_cascade(op: NpuOp, narrow: Steps, known: set[int], limit: int) -> Cascade | None:
    """The longest cascade from an operation on that fits; it ends before an operation whose feature maps fit whole."""
    size, last = narrow[op.index].buffer_bytes, op.index
    rolling: dict[int, int] = {}
    for producer, consumer, between in _joints(op, narrow, known):
        larger = size + narrow[consumer.index].buffer_bytes + between
        if larger > limit or _uncut_bytes(consumer) < limit:
            break
        size, last = larger, consumer.index
        rolling[id(producer.output)] = between
    return Cascade(first=op.index, last=last, bytes=size, rolling=rolling) if rolling else None


def _joints(op: NpuOp, narrow: Steps, known: set[int]) -> Iterator[tuple[NpuOp, NpuOp, int]]:
    """Neighbours that could run stripe by stripe, from `op` on, with the bytes of the rolling buffer between them.

    The results of an operation that works in place take the rolling buffer of its input, where that has their shape.
    """
    producer, before = op, None
    while (consumer := _follower(producer, known)) and all(_can_cascade(narrow[e.index]) for e in (producer, consumer)):
        shape = rolling_shape(narrow[producer.index], narrow[consumer.index])
        shared = shape == before and _in_place(producer, narrow[producer.index])
        yield producer, consumer, 0 if shared else math.prod(shape)
        producer, before = consumer, shape


def _uncut_bytes(op: NpuOp) -> int:
    """What an operation's input and results take whole; the input alone where they replace it."""
    read, written = op.inputs[0].bytes, op.written.bytes
    return read if read == written and _in_place(op, None) else read + written


def _follower(producer: NpuOp, known: set[int]) -> NpuOp | None:
    """The next operation, if it alone reads this one's results, whole and in bricks."""
    made = producer.written
    if len(made.consumers) != 1 or len(made.producers) != 1 or made.linear or made.is_output or producer.chained:
        return None
    (reader,) = made.consumers
    adjacent = reader.index == producer.index + 1 and reader.index in known
    return reader if adjacent and reader.inputs[0] is made and producer.shape == reader.input_shapes[0] else None


def _can_cascade(step: Step) -> bool:
    op = step.op
    kinds = (OpKind.CONVOLUTION, OpKind.DEPTHWISE, OpKind.ELEMENTWISE, OpKind.POOLING)
    enlarged = op.upscale > 1 and op.kind is not OpKind.POOLING
    return op.kind in kinds and op.type != "copy" and not enlarged and step.stripe < op.shape[0]


def _in_place(op: NpuOp, step: Step | None) -> bool:
    one_to_one = op.kind is OpKind.ELEMENTWISE or (op.kind is OpKind.POOLING and op.window.is_unit)
    readers = len(op.inputs[0].consumers) == 1 and len(op.written.producers) == 1
    return (
        one_to_one and readers and not op.inputs[0].is_output and (step is None or step.stripe == step.stripe_input[0])
    )


def rolling_shape(producer: Step, consumer: Step) -> tuple[int, int, int]:
    """Rows (whole inputs of the consumer's stripe, one stripe of the producer more), columns, channels in bricks."""
    needed = consumer.stripe_input[0]
    rows = round_up(producer.stripe + needed, needed)
    return rows, consumer.stripe_input[1], round_up(producer.op.shape[2], BRICK)


def optimize_cascade(
    costs: Costs, operations: Sequence[NpuOp], steps: Steps, whole: Steps, cascade: Cascade, limit: int
) -> tuple[Steps, list[Cascade]] | None:
    """The same operations in the highest stripes that still fit, their weights staged where that pays.

    Args:
        costs: of the system.
        operations: all of the network.
        steps: as cascaded so far.
        whole: uncut.
        cascade: to improve.
        limit: bytes on chip.
    """
    members = operations[cascade.first : cascade.last + 1]
    buffered = _staged(costs, operations, steps, cascade, limit)
    best: tuple[Steps, list[Cascade]] | None = None
    most: int | None = None
    for rows in range(steps[cascade.last].stripe + 1, (members[-1].shape[0] + 1) // 2 + 1):
        chosen, cascades = build_cascades(members, _striped(costs, members, buffered, rows), whole, limit)
        most = len(cascades) if most is None else most
        # Higher stripes take more, so that behind the first that fail none are tried: those that do not fit, or that
        # tear the cascade into more pieces than the lowest did.
        if len(cascades) > most or _memory(members, chosen, cascades) > limit:
            return best
        best = chosen, cascades
        if not cascades:
            return best
    return best


def _staged(costs: Costs, operations: Sequence[NpuOp], steps: Steps, cascade: Cascade, limit: int) -> Steps:
    """The cascade's steps with their weights staged in what its rolling buffers leave."""
    staged: Steps = {}
    used = cascade.bytes
    for index in range(cascade.first, cascade.last + 1):
        room = limit - used
        before = staged.get(index - 1) or (steps[index - 1].changed(slack_bytes=limit) if index else None)
        if before is not None and index == cascade.first:
            before = before.changed(slack_cycles=before.cycles)
        step = steps[index].changed(slack_bytes=max(room, 0), slack_cycles=steps[index].cycles)
        ask = Room(limit=max(room, 0), previous=before, consumer=_consumer(operations[index], steps))
        staged[index] = propose_buffer(costs, step, steps[index], ask)
        used += staged[index].buffer_bytes
    return staged


def _consumer(op: NpuOp, steps: Steps) -> Step | None:
    readers = op.written.consumers
    return steps.get(readers[0].index) if readers else None


def _striped(costs: Costs, members: Sequence[NpuOp], reference: Steps, rows: int) -> Steps:
    """Stripes from the last operation's rows backwards; buffers of all weights at once are kept."""
    striped: Steps = {}
    for op in reversed(members):
        step = costs.step(op, rows)
        held = reference[op.index].buffer
        if held is not None and len(held.parts) == 1 and step.weights is not None:
            size = step.weights.bytes
            step = step.changed(buffer=Buffer(parts=(size,), ahead=False, slices=(0, op.shape[2])))
        striped[op.index] = step
        rows = step.stripe // op.upscale * op.window.stride[0]
    return striped


def _memory(members: Sequence[NpuOp], steps: Steps, cascades: Sequence[Cascade]) -> int:
    """The most that any of them takes on chip if all feature maps lay there."""
    peak = max((cascade.bytes for cascade in cascades), default=0)
    for op in members:
        if not steps[op.index].in_cascade:
            maps: list[FeatureMap] = [*op.inputs, op.output]
            peak = max(peak, steps[op.index].buffer_bytes + sum(tensor.bytes for tensor in maps))
    return peak
