"""The whole network: which operations are cascaded, what is staged on chip, and what each then takes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from bitwright.hw_constraints.cost.ethos_u.buffering import Room, propose_buffer
from bitwright.hw_constraints.cost.ethos_u.cascades import (
    Cascade,
    Steps,
    build_cascades,
    narrowest,
    optimize_cascade,
)
from bitwright.hw_constraints.cost.ethos_u.costs import Costs, channel
from bitwright.hw_constraints.cost.ethos_u.cycles import Operands, op_cycles
from bitwright.hw_constraints.cost.ethos_u.figures import Channel, Memory, System
from bitwright.hw_constraints.cost.ethos_u.graph_reader import Unmodelled
from bitwright.hw_constraints.cost.ethos_u.live import lifetimes
from bitwright.hw_constraints.cost.ethos_u.operations import NpuOp
from bitwright.hw_constraints.cost.ethos_u.staging import stage_feature_maps
from bitwright.hw_constraints.cost.ethos_u.step import Step
from bitwright.hw_constraints.cost.ethos_u.traffic import Traffic, copy_cycles, feature_traffic


@dataclass(frozen=True, kw_only=True)
class OpCost:
    """What one operation takes.

    Attributes:
        name: its result's tensor.
        op: the operation.
        step: how it is run.
        cycles: from its start to the next one's.
        compute_cycles: of the accelerator, with waiting for weights.
        memory_cycles: by memory, what its traffic takes.
        bytes: by memory, read and written.
    """

    name: str
    op: NpuOp
    step: Step
    cycles: int
    compute_cycles: int
    memory_cycles: dict[str, int]
    bytes: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """What a network takes.

    Attributes:
        ops: in the order of execution.
        on_chip_peak: bytes of SRAM in use at once.
        cascades: operations that run in stripes together, as (first, last).
        unmodelled: nodes of the network that are not reckoned with, and why.
        system: the accelerator with its memories.
    """

    ops: tuple[OpCost, ...]
    on_chip_peak: int
    cascades: tuple[tuple[int, int], ...]
    system: System
    unmodelled: tuple[Unmodelled, ...] = ()

    @property
    def cycles(self) -> int:
        """Of the whole network."""
        return sum(op.cycles for op in self.ops)

    @property
    def off_chip_bytes(self) -> int:
        """Read from and written to off-chip memory."""
        return sum(op.bytes.get(self.system.off_chip.name, 0) for op in self.ops)


def cost_of(operations: Sequence[NpuOp], system: System) -> NetworkCost:
    """Schedules the operations and reckons what they take.

    Without spilling everything is uncut and weights are staged as pays. Where feature maps lie off chip, operations
    whose feature maps do not fit are cascaded in the highest stripes that fit, then weights, then feature maps are
    staged in what is left.
    """
    costs = Costs(system)
    whole = {op.index: costs.step(op, op.shape[0]) for op in operations}
    limit = min(system.staging_limit, 1 << 30)
    cascades: list[Cascade] = []
    steps = whole
    if system.spills:
        steps, cascades = build_cascades(operations, narrowest(costs, operations), whole, limit)
        for cascade in list(cascades):
            better = optimize_cascade(costs, operations, steps, whole, cascade, limit)
            if better is not None:
                cascades.remove(cascade)
                steps.update(better[0])
                cascades += better[1]
    ordered = stage_weights(costs, operations, steps, cascades, limit)
    rolling = {tensor: size for cascade in cascades for tensor, size in cascade.rolling.items()}
    if system.spills:
        kept = stage_feature_maps(ordered, system, rolling)
    else:
        kept = {id(tensor) for op in operations for tensor in (*op.read, op.written)}
    alive = lifetimes(ordered, kept, system, rolling)
    return NetworkCost(
        ops=_costs(costs, ordered, kept | set(rolling)),
        on_chip_peak=max(alive.usage(), default=0),
        cascades=tuple((cascade.first, cascade.last) for cascade in cascades),
        system=system,
    )


def stage_weights(
    costs: Costs, operations: Sequence[NpuOp], steps: Steps, cascades: Sequence[Cascade], limit: int
) -> list[Step]:
    """Every operation with its weights staged where that pays, in order.

    Within a cascade the compiler counts a buffer that was planned with the stripes and one that is kept now, both:
    where stripes are as high as fits, later members go without.
    """
    used = {cascade.last: cascade.bytes for cascade in cascades}
    ordered: list[Step] = []
    for op in operations:
        reference = steps[op.index]
        taken = used.get(reference.cascade, 0) - reference.buffer_bytes if reference.in_cascade else 0
        room = max(limit - taken, 0)
        step = reference.changed(slack_bytes=room, slack_cycles=reference.cycles, buffer=None)
        readers = op.written.consumers
        ask = Room(
            limit=room,
            previous=ordered[-1] if ordered else None,
            consumer=steps[readers[0].index] if readers else None,
        )
        staged = propose_buffer(costs, step, reference, ask)
        if reference.in_cascade:
            used[reference.cascade] += staged.buffer_bytes
        ordered.append(staged)
    return ordered


def _costs(costs: Costs, steps: Sequence[Step], on_chip: set[int]) -> tuple[OpCost, ...]:
    results: list[OpCost] = []
    previous: Step | None = None
    for step in steps:
        results.append(_cost(costs, step, previous, on_chip))
        previous = step
    return tuple(results)


def _cost(costs: Costs, step: Step, previous: Step | None, on_chip: set[int]) -> OpCost:
    """The slower of the accelerator and of each memory.

    Staged weights: their first slice adds to the cycles what the operation before does not hide.
    """
    op, system, configuration = step.op, costs.system, costs.configuration
    tensors = (*op.read, op.written, op.output)
    memories = {id(tensor): system.on_chip if id(tensor) in on_chip else system.feature_maps for tensor in tensors}
    inputs = [memories[id(tensor)] for tensor in op.inputs]
    operands: Operands = costs.operands(
        op, op.shape, op.input_shapes[0], inputs=inputs, output=memories[id(op.output)], staged=step.buffer is not None
    )
    cycles = op_cycles(op, step.block, operands, configuration)
    traffic = feature_traffic(op, step.block, step.access, memories, configuration)
    busy = Traffic(bytes=dict(traffic.bytes))
    if step.weights is not None:
        cycles = _with_weights(costs, step, previous, cycles)
        _weight_traffic(step, system, busy)
        _weight_bytes(step, system, traffic)
    waits = {memory.name: busy.cycles(memory, configuration) for memory in _memories(system)}
    return OpCost(
        name=op.name,
        op=op,
        step=step,
        cycles=max(cycles, *waits.values()),
        compute_cycles=cycles,
        memory_cycles=waits,
        bytes={memory.name: traffic.of(memory) for memory in _memories(system)},
    )


def _memories(system: System) -> tuple[Memory, ...]:
    return system.on_chip, system.off_chip


def _with_weights(costs: Costs, step: Step, previous: Step | None, cycles: int) -> int:
    if step.buffer is None or step.weights is None:
        return cycles
    slack = previous.slack_cycles if previous else 0
    first = step.weights.slice_bytes(*step.buffer.slices[:2])
    system = costs.system
    wait = max(copy_cycles(system.off_chip, system.on_chip, first, costs.configuration) - slack, 0)
    return max(step.transfer_cycles - slack + step.slack_cycles, cycles + wait)


def _stored(step: Step) -> tuple[int, int]:
    """Bytes of the weights and of their scales, slice by slice as they are staged."""
    weights = step.weights
    assert weights is not None
    borders = step.buffer.slices if step.buffer else (0, weights.channels)
    sizes = [last - first for first, last in itertools.pairwise(borders)]
    return sum(map(weights.weight_slice_bytes, sizes)), sum(map(weights.scale_bytes, sizes))


def _weight_traffic(step: Step, system: System, busy: Traffic) -> None:
    """What the memories do while the operation runs."""
    weights, buffer = step.weights, step.buffer
    assert weights is not None
    stored, scales = _stored(step)
    read = stored * step.access.refetches
    if buffer is None:
        busy.add(system.off_chip, Channel.WEIGHT, "weights", read)
    else:
        ahead = weights.slice_bytes(*buffer.slices[:2]) if buffer.ahead else 0
        moved = max(stored - ahead, 0)
        busy.add(system.off_chip, Channel.COPY, "weights", moved)
        busy.add(system.on_chip, Channel.WRITE, "weights", moved)
        busy.add(system.on_chip, channel(weights), "weights", read)
    busy.add(system.off_chip, Channel.SCALE, "scales", scales * step.access.refetches)


def _weight_bytes(step: Step, system: System, traffic: Traffic) -> None:
    """What is moved for the operation, ahead of it included."""
    weights = step.weights
    assert weights is not None
    stored, scales = _stored(step)
    source = system.off_chip
    if step.buffer is not None:
        source = system.on_chip
        traffic.add(system.off_chip, Channel.COPY, "weights", stored + scales)
        traffic.add(system.on_chip, Channel.WRITE, "weights", stored + scales)
    traffic.add(source, channel(weights), "weights", stored * step.access.refetches)
    traffic.add(source, Channel.SCALE, "scales", scales * step.access.refetches)
