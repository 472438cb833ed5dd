"""Last pass: an address for every buffer, by `allocate.allocate`.

Constants lie one behind the other in the memory behind, as a file has them.
"""

from __future__ import annotations

from collections.abc import Sequence

from bitwright.hw_constraints.lower.allocate import Buffer, Placement, allocate
from bitwright.hw_constraints.lower.hardware import Hardware
from bitwright.hw_constraints.lower.place import Residency
from bitwright.hw_constraints.lower.program import Address, LoweredOp, MemoryPlan, Program
from bitwright.quant.graph import TensorRef


def buffers_beside(ops: Sequence[LoweredOp], program: Program, residency: Residency) -> list[Buffer]:
    """The tensors that stay and the tiles' buffers, with the operations between which they live."""
    align = program.alignment_bytes
    buffers = [
        Buffer(
            name=str(ref),
            size_bytes=residency.lifetimes[ref].bytes,
            first=max(residency.lifetimes[ref].first, 0),
            last=residency.lifetimes[ref].last,
            alignment=align,
        )
        for ref in sorted(residency.beside)
    ]
    for position, op in enumerate(ops):
        for number, stage in enumerate(op.stages):
            early = op.prefetched and stage.ref in op.block.constants and stage.copies == 1
            buffers.append(
                Buffer(
                    name=_stage_name(op, number),
                    size_bytes=stage.bytes * stage.copies,
                    first=position - 1 if early else position,
                    last=position,
                    alignment=align,
                )
            )
    return buffers


def _stage_name(op: LoweredOp, number: int) -> str:
    return f"{op.name} tile {number}"


def crowded(placement: Placement, buffers: Sequence[Buffer], residency: Residency) -> TensorRef | None:
    """The largest tensor among those that reach beyond the memory's end; None when only tiles do."""
    capacity = placement.capacity or 0
    beyond = [each for each in buffers if placement.offsets[each.name] + each.size_bytes > capacity]
    names = {str(ref): ref for ref in residency.beside}
    steps = {(each.first, each.last) for each in beyond}
    meeting = [
        each
        for each in buffers
        if each.name in names and any(each.first <= last and first <= each.last for first, last in steps)
    ]
    if not meeting:
        return None
    return names[max(meeting, key=lambda each: (each.size_bytes, each.name)).name]


def memory_plan(
    ops: Sequence[LoweredOp],
    program: Program,
    hardware: Hardware,
    residency: Residency,
    beside: Placement,
    buffers: Sequence[Buffer],
) -> MemoryPlan:
    """Every address, given the placement beside the engines."""
    behind = hardware.behind.name
    stay = residency.beside if hardware.beside else frozenset()  # what a cache keeps has its address behind it
    lifetimes = residency.lifetimes
    align = program.alignment_bytes
    outside = [
        Buffer(name=str(ref), size_bytes=each.bytes, first=max(each.first, 0), last=each.last, alignment=align)
        for ref, each in sorted(lifetimes.items())
        if ref not in stay
    ]
    far = allocate(outside, hardware.behind.size_bytes, effort=0)
    near = hardware.beside.name if hardware.beside else behind
    tensors = {}
    for ref, storage in residency.storages.items():
        root = program.stored(ref)
        if root not in lifetimes:
            continue
        life, stays = lifetimes[root], root in stay
        offset = (beside if stays else far).offsets[str(root)]
        tensors[ref] = (Address(near if stays else behind, offset, life.bytes, life.first, life.last), storage)
    sizes = {each.name: each for each in buffers}
    stages = {}
    for op in ops:
        for number in range(len(op.stages)):
            each = sizes[_stage_name(op, number)]
            offset = beside.offsets[each.name]
            stages[op.name, number] = Address(near, offset, each.size_bytes, each.first, each.last)
    constants, end = _constants(ops, program, behind, align)
    peaks = {behind: far.peak_bytes}
    if hardware.beside is not None:
        peaks[near] = beside.peak_bytes
    return MemoryPlan(
        tensors=tensors,
        constants=constants,
        stages=stages,
        peak_bytes=peaks,
        constant_bytes={behind: end},
        spilled=residency.spilled,
    )


def _constants(
    ops: Sequence[LoweredOp], program: Program, memory: str, align: int
) -> tuple[dict[TensorRef, Address], int]:
    addresses: dict[TensorRef, Address] = {}
    end = 0
    for position, op in enumerate(ops):
        for ref in op.block.constants:
            if ref not in addresses:
                end = -(-end // align) * align
                size = program.bytes_of(ref)
                addresses[ref] = Address(memory, end, size, -1, position)
                end += size
    return addresses, end
