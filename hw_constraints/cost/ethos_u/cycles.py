"""Cycles of one operation while its operands are at hand: MAC array, output unit and the issuing of blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Flag

from bitwright.hw_constraints.cost.ethos_u.block_search import Block, Traversal
from bitwright.hw_constraints.cost.ethos_u.figures import (
    BRICK,
    SCALE_BYTES,
    SUBKERNEL,
    Configuration,
    Hwc,
    Memory,
    ceil_div,
    round_up,
)
from bitwright.hw_constraints.cost.ethos_u.operations import FeatureMap, NpuOp, OpKind
from bitwright.hw_constraints.cost.ethos_u.traffic import burst_bytes

UNITS = 4  # blocks in flight: the issuing of one hides behind the work on three others [V]
STEP = 4  # cycles in which the MAC array takes one micro-block through one step [V]
WAIT = 2  # cycles between dependent steps when a block holds one micro-block a channel group [V]
DIVIDE_CYCLES = 33.0


class Place(Flag):
    """Where a part of an operation stands: the first shows its first fetch, the last its last write."""

    MIDDLE = 0
    FIRST = 1
    LAST = 2
    SINGLE = FIRST | LAST


@dataclass(frozen=True, kw_only=True)
class Operands:
    """What the operation, or a part of it, works on, and from where.

    Attributes:
        shape: of the results.
        input_shapes: of the operands.
        inputs: where the operands lie.
        output: where the results go.
        scales: where bias and scale come from; None without.
    """

    shape: Hwc
    input_shapes: tuple[Hwc, ...]
    inputs: tuple[Memory, ...]
    output: Memory
    scales: Memory | None


def op_cycles(
    op: NpuOp, block: Block, operands: Operands, configuration: Configuration, place: Place = Place.SINGLE
) -> int:
    """Cycles of an operation or of one slice of its channels."""
    if op.kind in (OpKind.ELEMENTWISE, OpKind.RESIZE):
        return _output_bound_cycles(op, block, operands, configuration)
    return _mac_cycles(op, block, operands, configuration, place)


def _mac_cycles(op: NpuOp, block: Block, operands: Operands, configuration: Configuration, place: Place) -> int:
    """Blocks x the slower of MAC array and output unit, and once the other at the end.

    A block cannot be issued faster than a quarter of its fetch, its MAC work and its output work.
    """
    ofm = tuple(map(min, operands.shape, block.ofm))
    micro = _micro_block(op, block, operands.shape, configuration)
    in_block = math.prod(map(ceil_div, ofm, micro))
    blocks = math.prod(map(ceil_div, operands.shape, micro)) / in_block
    out = float(math.ceil(output_cycles_per_element(op, configuration) * math.prod(ofm)))
    if operands.scales is not None:
        out = max(out, SCALE_BYTES * ofm[2] * operands.scales.read_latency / 256)
    mac = float(_mac_cycles_per_block(op, block, operands, configuration, micro))
    fetch, store = _fetch_cycles(op, block, operands, configuration), _store_cycles(op, block, operands, configuration)
    issue = ((abs(store - fetch) if blocks > 1 else 0) + mac + out) / UNITS
    mac, out = max(mac, issue), max(out, issue)
    total = int(mac * blocks) + (int(out) if Place.LAST in place else 0) if mac > out else int(out * blocks + mac)
    total += store if Place.LAST in place else 0
    return total + (fetch if Place.FIRST in place else 0)


def _micro_block(op: NpuOp, block: Block, shape: Hwc, configuration: Configuration) -> Hwc:
    """U65 lays its micro-block out in a row for one-dimensional convolutions."""
    flat = (
        block.micro[0] == 2
        and op.kind is OpKind.CONVOLUTION
        and shape[0] == 1
        and shape[1] % 2 == 0
        and op.window.kernel[0] == 1
    )
    return (1, 4, block.micro[2]) if flat and not configuration.is_u85 else block.micro


def _mac_cycles_per_block(op: NpuOp, block: Block, operands: Operands, configuration: Configuration, micro: Hwc) -> int:
    ifm = tuple(map(min, operands.input_shapes[0], block.ifm))
    ofm = tuple(map(min, operands.shape, block.ofm))
    rows, columns, depth = map(ceil_div, ofm, micro)
    area = rows * columns
    u85 = configuration.is_u85
    # The weights of one step are decoded in no less than this.
    decode = 32 * micro[2] // (8 * (configuration.cores if u85 else 1))
    kernel_first = op.kind is OpKind.CONVOLUTION and block.traversal is Traversal.KERNEL_FIRST
    total = 0
    for taps in _subkernels(op.window.kernel):
        if op.kind is OpKind.POOLING:
            steps, cycles = 1, max(STEP, taps) * area * depth * 4  # int8: bits / 2
        elif op.kind is OpKind.DEPTHWISE:
            steps = ceil_div(taps, 4)
            cycles = max(decode, STEP * area) * steps * depth
        elif kernel_first:
            steps = ceil_div(taps, 4)
            cycles = max(decode, STEP * area) * steps * depth * ceil_div(ifm[2], 8)
        else:
            steps = taps
            cycles = max(decode, (ifm[2] // 8 if u85 else STEP) * area) * steps * depth
        wait = 0
        if area == 1:
            wait = WAIT * (steps if depth == 1 else (steps - 1) * depth)
        total += cycles + wait * (ceil_div(ifm[2], 8) if kernel_first else 1)
    if op.kind is OpKind.CONVOLUTION:
        total *= ceil_div(operands.input_shapes[0][2], ifm[2])
    return total // (1 if u85 else configuration.cores)


def _subkernels(kernel: tuple[int, int]) -> list[int]:
    return [
        min(kernel[0] - y, SUBKERNEL) * min(kernel[1] - x, SUBKERNEL)
        for x in range(0, kernel[1], SUBKERNEL)
        for y in range(0, kernel[0], SUBKERNEL)
    ]


def output_cycles_per_element(op: NpuOp, configuration: Configuration) -> float:
    """Cycles of the output unit for one result; U85 goes through it once for each chained operation."""
    output = configuration.output
    if configuration.is_u85:
        passes = [DIVIDE_CYCLES if part.type == "div" else output.default for part in (op, *op.chained)]
        if op.kind is OpKind.RESIZE:
            passes[0] = output.resize
        return sum(passes)
    table = {"add": output.add, "sub": output.add, "mul": output.multiply, "max_pool2d": output.max_pool}
    activation = {"clip": output.activation_clip, "table": output.activation_table}
    return max(table.get(op.type, output.default), activation.get(op.activation, 0.0))


def _output_bound_cycles(op: NpuOp, block: Block, operands: Operands, configuration: Configuration) -> int:
    """Elementwise: the output unit's rate, or that at which blocks are issued."""
    rows, columns, depth = operands.shape
    elements = rows * columns * (depth if op.output.linear else round_up(depth, BRICK))
    each = output_cycles_per_element(op, configuration)
    moved = max(_fetch_cycles(op, block, operands, configuration), _store_cycles(op, block, operands, configuration))
    issue = (moved / math.prod(block.ofm) + each) / UNITS
    return max(math.ceil(issue * elements), math.ceil(each * elements))


def _fetch_cycles(op: NpuOp, block: Block, operands: Operands, configuration: Configuration) -> int:
    """Until the first input block has arrived; the slower of two."""
    tensors = zip(op.inputs, operands.input_shapes, operands.inputs, strict=True)
    return max(
        memory.read_latency + _block_cycles(tensor, shape, block.ifm, memory, configuration, read=True)
        for tensor, shape, memory in tensors
    )


def _store_cycles(op: NpuOp, block: Block, operands: Operands, configuration: Configuration) -> int:
    """Until the last output block has been written."""
    moved = _block_cycles(op.output, operands.shape, block.ofm, operands.output, configuration, read=False)
    return operands.output.write_latency + moved


def _block_cycles(
    tensor: FeatureMap, shape: Hwc, block: Hwc, memory: Memory, configuration: Configuration, *, read: bool
) -> int:
    elements = math.prod(map(min, shape, block))
    cores = 1 if configuration.is_u85 else configuration.cores
    size = burst_bytes(elements, read=read, tensor=tensor, shape=shape, block=block, memory=memory, cores=cores)
    return int(size / memory.bandwidth)
