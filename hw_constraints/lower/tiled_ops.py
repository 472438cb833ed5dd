"""Sixth pass: the loop nest of every block, cut into tiles that fit beside the engine with the tensors that live there.

The sizes are `tile.choose_tiling`'s; this pass says what room and which operands a tile meets, and which buffers its
operands pass through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from bitwright.hw_constraints.lower.array_steps import loop_lengths
from bitwright.hw_constraints.lower.hardware import Hardware, format_name
from bitwright.hw_constraints.lower.place import Residency
from bitwright.hw_constraints.lower.program import Block, LoweredOp, Pass, Program, Role, Stage, Traffic
from bitwright.hw_constraints.lower.storage import PLAIN
from bitwright.hw_constraints.lower.tile import ORDERS, DoesNotFit, Tiling, choose_tiling, cost_of
from bitwright.hw_constraints.lower.tile_cost import BIAS_BYTES, TileMachine
from bitwright.hw_constraints.lower.work import Axis, Work, WorkKind
from bitwright.hw_constraints.lower.work_of import ROW_OPERATORS, work_of
from bitwright.hw_constraints.target_hardware import Loop, Operand
from bitwright.quant.graph import TensorRef


def tile(program: Program, hardware: Hardware, residency: Residency) -> tuple[tuple[LoweredOp, ...], Residency]:
    """Cuts every block's nest; tensors beside the engine make room where not even the smallest tile would fit.

    Returns:
        The operations, and where tensors live after that.
    """
    ops: list[LoweredOp] = []
    for position, block in enumerate(program.blocks):
        op = tile_one(program, hardware, residency, position)
        while op is None:
            gone = _make_room(block, residency, position, hardware)
            residency = residency.without(gone)
            op = tile_one(program, hardware, residency, position)
        ops.append(op)
    return tuple(ops), residency


def tile_one(program: Program, hardware: Hardware, residency: Residency, position: int) -> LoweredOp | None:
    """One block's nest, cut; None when it fits only if a tensor goes."""
    block = program.blocks[position]
    work = block_work(program, block)
    op = LoweredOp(
        block=block, work=work, reasons=block.reasons, traffic=_traffic_whole(program, hardware, residency, block)
    )
    engine = hardware.engine(block.engine)
    if work is None or not block.on_accelerator or engine is None or hardware.beside is None:
        return op
    if work.kind is WorkKind.MOVE:
        return op.because(Pass.TILE, "moves bytes only: a transfer without tiles")
    # Every buffer may lose what its address is rounded up by.
    lost = program.alignment_bytes * (len(block.reads) + len(block.writes) + 1)
    room = (hardware.beside.size_bytes or 0) - residency.live_bytes[position] - lost
    streamed = _streamed(program, residency, block, work)
    described = program.target.layouts.get(program.layouts.get(block.writes[0], PLAIN))
    machine = TileMachine.of(
        engine,
        hardware.beside,
        hardware.behind,
        work.kind,
        room=max(room, 1),
        streamed=streamed,
        channel_multiple=described.channel_multiple.get(format_name(work.output_bits), 1) if described else 1,
    )
    whole_rows = work.kind is WorkKind.REDUCTION and block.op in ROW_OPERATORS
    tiling = rows_tiling(work, machine) if whole_rows else choose_tiling(work, machine)
    if isinstance(tiling, Tiling):
        if not streamed:
            op = replace(op, tiling=tiling)
            return op.because(Pass.TILE, f"every operand is in {hardware.beside.name} already: one tile")
        return _tiled(program, hardware, residency, op, tiling, machine)
    if residency.live_bytes[position]:
        return None
    return op.because(Pass.TILE, f"runs from {hardware.behind.name} in one piece: {tiling}")


@lru_cache(maxsize=65536)
def rows_tiling(work: Work, machine: TileMachine) -> Tiling | DoesNotFit:
    """As many whole rows as fit: each result of such an operator depends on its row from end to end."""
    lengths = loop_lengths(work)

    def cut(rows: int) -> Tiling:
        return cost_of(work, machine, {**lengths, Loop.OUT_X: rows}, ORDERS[0])

    smallest = cut(1)
    if smallest.buffer_bytes > machine.capacity_bytes:
        return DoesNotFit(needed_bytes=smallest.buffer_bytes, capacity_bytes=machine.capacity_bytes)
    low, high = 1, work.x.output
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cut(middle).buffer_bytes <= machine.capacity_bytes else (low, middle - 1)
    return cut(low)


def block_work(program: Program, block: Block) -> Work | None:
    """The nest of a block; of a change of layout, a move of the whole tensor."""
    if not block.nodes:
        elements = program.graph.tensors[block.reads[0]].elements
        bits = program.bits(block.reads[0])
        along, one = Axis(output=elements, input=elements), Axis(output=1, input=1)
        return Work(
            kind=WorkKind.MOVE, out_channels=1, in_channels=1, y=one, x=along,
            weight_bits=0, input_bits=bits, output_bits=bits,
        ) if elements else None  # fmt: skip
    image = any(program.layouts.get(ref, PLAIN) != PLAIN for ref in block.writes)
    return work_of(program.graph, block.nodes[0], program.bits, written=block.writes[0], image=image)


def _streamed(program: Program, residency: Residency, block: Block, work: Work) -> frozenset[Operand]:
    """The operands that come from, or go to, the memory behind."""
    found = set()
    data, weights = split_operands(program, block, work)
    if any(program.stored(ref) not in residency.beside for ref in data):
        found.add(Operand.ACTIVATIONS)
    if any(program.stored(ref) not in residency.beside for ref in weights):
        found.add(Operand.WEIGHTS)
    if any(program.stored(ref) not in residency.beside for ref in block.writes):
        found.add(Operand.OUTPUTS)
    return frozenset(found)


def split_operands(program: Program, block: Block, work: Work) -> tuple[list[TensorRef], list[TensorRef]]:
    """What a block reads as data, and what as weights (the second matrix of a product of activations, too)."""
    data, weights = list(block.reads), list(block.constants)
    if work.weights_are_activations and block.nodes:
        _, weight, _ = program.graph.layer_positions(block.nodes[0])
        second = block.nodes[0].inputs[weight]
        if second in data and len(data) > 1:
            data.remove(second)
            weights.insert(0, second)
    return data, weights


def _make_room(block: Block, residency: Residency, position: int, hardware: Hardware) -> dict[TensorRef, str]:
    """The largest tensor that lives while a block runs, sent behind."""
    lifetimes = residency.lifetimes
    live = [ref for ref in residency.beside if max(lifetimes[ref].first, 0) <= position <= lifetimes[ref].last]
    ref = max(live, key=lambda each: (lifetimes[each].bytes, each))
    return {
        ref: f"{ref} ({lifetimes[ref].bytes:,} bytes) goes to {hardware.behind.name}: with it not even the smallest "
        f"tile of {block.name!r} fits beside the engine"
    }


def _tiled(
    program: Program,
    hardware: Hardware,
    residency: Residency,
    op: LoweredOp,
    tiling: Tiling,
    machine: TileMachine,
) -> LoweredOp:
    work, block = op.work, op.block
    assert work is not None and hardware.beside is not None
    stages = _stages(program, residency, block, work, tiling, machine)
    loaded = tiling.loaded_bytes
    weights_behind = Operand.WEIGHTS in machine.streamed
    behind = Traffic(
        read=round(
            (loaded[Operand.ACTIVATIONS] if Operand.ACTIVATIONS in machine.streamed else 0)
            + (loaded[Operand.WEIGHTS] if weights_behind else 0)
            + tiling.partial_bytes / 2
        ),
        written=round((tiling.stored_bytes if Operand.OUTPUTS in machine.streamed else 0) + tiling.partial_bytes / 2),
    )
    # What passes through the memory beside the engine: everything that comes in is written once and read once.
    whole = op.traffic.get(hardware.beside.name, Traffic())
    beside = Traffic(read=whole.read + behind.read, written=whole.written + behind.written + behind.read)
    cut = {loop: size for loop, size in tiling.sizes.items() if size < loop_lengths(work)[loop]}
    lengths = loop_lengths(work)
    along = ", ".join(f"{loop.replace('_', ' ')} {size} of {lengths[loop]}" for loop, size in cut.items())
    room = f"{tiling.buffer_bytes:,} of the {machine.capacity_bytes:,} bytes that are free in {hardware.beside.name}"
    text = f"{tiling.tiles} tiles ({along})" if cut else "one tile"
    op = replace(op, tiling=tiling, stages=stages, traffic={hardware.behind.name: behind, hardware.beside.name: beside})
    return op.because(Pass.TILE, f"{text}; buffers take {room}")


def _stages(
    program: Program, residency: Residency, block: Block, work: Work, tiling: Tiling, machine: TileMachine
) -> tuple[Stage, ...]:
    """One buffer for each operand that is not beside the engine."""
    data, weights = split_operands(program, block, work)
    counts = {loop: -(-length // tiling.sizes[loop]) for loop, length in loop_lengths(work).items()}
    double = 2 if machine.double_buffered else 1
    stages = []
    moves = math.prod(counts[loop] for loop in counts if loop is not Loop.OUT_CHANNELS)
    for ref in data:
        if program.stored(ref) not in residency.beside:
            beside_result = block.nodes and ref not in block.nodes[0].tensors
            size = tile_bytes(work, tiling.sizes, Role.OUTPUT if beside_result else Role.INPUT)
            whole = residency.storages[ref].bytes
            stages.append(Stage(role=Role.INPUT, ref=ref, bytes=min(size, whole), copies=double if moves > 1 else 1))
    behind = [ref for ref in weights if program.stored(ref) not in residency.beside]
    if behind and (work.weight_bits or work.has_bias):
        moves = math.prod(counts[loop] for loop in (Loop.GROUPS, Loop.OUT_CHANNELS, Loop.IN_CHANNELS))
        moves *= counts[Loop.BATCH] if work.weights_are_activations else 1
        size = tile_bytes(work, tiling.sizes, Role.WEIGHTS)
        stages.append(Stage(role=Role.WEIGHTS, ref=behind[0], bytes=size, copies=double if moves > 1 else 1))
    moves = math.prod(counts[loop] for loop in counts if loop is not Loop.IN_CHANNELS)
    for ref in block.writes:
        if program.stored(ref) not in residency.beside:
            size = tile_bytes(work, tiling.sizes, Role.OUTPUT, partial=counts[Loop.IN_CHANNELS] > 1)
            stages.append(Stage(role=Role.OUTPUT, ref=ref, bytes=size, copies=double if moves > 1 else 1))
    return tuple(stages)


def tile_bytes(work: Work, sizes: Mapping[Loop, int], role: Role, *, partial: bool = False) -> int:
    """Bytes of one tile of one operand, elements side by side."""
    batch, groups, out_channels, in_channels, rows, columns = (
        sizes[loop] for loop in (Loop.BATCH, Loop.GROUPS, Loop.OUT_CHANNELS, Loop.IN_CHANNELS, Loop.OUT_Y, Loop.OUT_X)
    )
    if role is Role.WEIGHTS:
        copies = batch if work.weights_are_activations else 1
        weights = copies * groups * out_channels * in_channels * work.y.kernel * work.x.kernel
        return -(-weights * work.weight_bits // 8) + work.has_bias * BIAS_BYTES * groups * out_channels
    if role is Role.OUTPUT:
        return -(-batch * groups * out_channels * rows * columns * (32 if partial else work.output_bits) // 8)
    height, width = min(work.y.span(rows), work.y.input), min(work.x.span(columns), work.x.input)
    return -(-batch * groups * in_channels * height * width * work.input_bits // 8)


def _traffic_whole(program: Program, hardware: Hardware, residency: Residency, block: Block) -> dict[str, Traffic]:
    """Bytes by memory when every operand is moved once."""
    read = {hardware.behind.name: 0}
    written = {hardware.behind.name: 0}
    on_chip = hardware.on_chip
    beside = on_chip.name if on_chip else hardware.behind.name
    read.setdefault(beside, 0)
    written.setdefault(beside, 0)
    for ref in block.reads:
        where = beside if program.stored(ref) in residency.beside else hardware.behind.name
        read[where] += residency.storages[ref].bytes
    for ref in block.constants:
        read[hardware.behind.name] += program.bytes_of(ref)
    for ref in block.writes:
        where = beside if program.stored(ref) in residency.beside else hardware.behind.name
        written[where] += residency.storages[ref].bytes
    return {name: Traffic(read[name], written[name]) for name in read}
