"""Seventh pass: when transfers run. Tiles are double buffered; weights come in while the operation before runs.

The order of operations is the partition pass's. What is decided here is how early an operation's weights may come: if
all of them pass through one buffer, and there is room for it beside what the operation before needs, the buffer
begins to live one step earlier and the transfer is hidden behind that step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bitwright.hw_constraints.lower.hardware import Hardware
from bitwright.hw_constraints.lower.place import Residency
from bitwright.hw_constraints.lower.program import LoweredOp, Pass, Program, Role


def schedule(
    ops: Sequence[LoweredOp], program: Program, hardware: Hardware, residency: Residency
) -> tuple[LoweredOp, ...]:
    """Decides which weights are fetched ahead."""
    if hardware.beside is None:
        return tuple(ops)
    capacity = hardware.beside.size_bytes or 0
    live = residency.live_bytes
    align = program.alignment_bytes
    taken = [
        live[position] + sum(-(-stage.bytes * stage.copies // align) * align for stage in op.stages)
        for position, op in enumerate(ops)
    ]
    scheduled = list(ops)
    for position in range(1, len(ops)):
        op, before = ops[position], ops[position - 1]
        weights = [stage for stage in op.stages if stage.role is Role.WEIGHTS and stage.copies == 1]
        if not weights or not before.block.on_accelerator or before.block.partition != op.block.partition:
            continue
        if weights[0].ref not in op.block.constants:
            continue  # the operation before may be the one that computes it
        size = sum(stage.bytes for stage in weights)
        room = -(-size // align) * align
        if taken[position - 1] + room <= capacity:
            taken[position - 1] += room
            text = f"{size:,} bytes of weights come in while {before.name!r} runs"
            scheduled[position] = replace(op, prefetched=size).because(Pass.SCHEDULE, text)
        else:
            free = capacity - taken[position - 1]
            text = f"weights ({size:,} bytes) cannot come in while {before.name!r} runs: {free:,} bytes are free then"
            scheduled[position] = op.because(Pass.SCHEDULE, text)
    return tuple(scheduled)
