"""What one operation moves between memories and accelerator: elements, bytes with their bursts, and cycles for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from bitwright.hw_constraints.cost.ethos_u.block_search import Block
from bitwright.hw_constraints.cost.ethos_u.figures import (
    BRICK,
    SUBKERNEL,
    Channel,
    Configuration,
    Hwc,
    Memory,
    ceil_div,
    round_up,
)
from bitwright.hw_constraints.cost.ethos_u.operations import FeatureMap, NpuOp, OpKind

EFFICIENCY = 0.8  # share of outstanding transactions, and of their data cycles, that a U85 channel reaches [V]


@dataclass(frozen=True, kw_only=True)
class Access:
    """Elements that an operation fetches and writes.

    Attributes:
        reads: of each of `op.read`.
        write: of the result.
        refetches: how often all weights are read; 0 without weights.
    """

    reads: tuple[int, ...]
    write: int
    refetches: int


@dataclass(kw_only=True)
class Traffic:
    """Bytes by memory and channel.

    Attributes:
        bytes: by (memory's name, channel, kind), kind being `features`, `weights` or `scales`.
    """

    bytes: dict[tuple[str, Channel, str], int] = field(default_factory=dict)

    def add(self, memory: Memory, channel: Channel, kind: str, size: int) -> None:
        """Counts bytes."""
        key = (memory.name, channel, kind)
        self.bytes[key] = self.bytes.get(key, 0) + size

    def of(self, memory: Memory, kind: str | None = None) -> int:
        """All bytes of a memory."""
        return sum(size for (name, _, sort), size in self.bytes.items() if name == memory.name and kind in (None, sort))

    def cycles(self, memory: Memory, configuration: Configuration) -> int:
        """Cycles that a memory is busy: all bytes at its bandwidth, or its busiest channel."""
        busy = int(self.of(memory) / memory.bandwidth)
        if not configuration.is_u85:
            return busy
        channels: dict[Channel, int] = {}
        for (name, channel, _), size in self.bytes.items():
            if name == memory.name:
                cycles = int(size / channel_bandwidth(memory, channel, configuration))
                channels[channel] = channels.get(channel, 0) + cycles
        return max(busy, *channels.values(), 0)


def channel_bandwidth(memory: Memory, channel: Channel, configuration: Configuration) -> float:
    """Bytes a cycle of one channel: outstanding transactions x burst / latency, at most the memory's bandwidth.

    A read channel has as many transactions on their way as its reorder buffer holds. Only U85 is modelled so.
    """
    if not configuration.is_u85:
        return memory.bandwidth
    write = channel is Channel.WRITE
    outstanding = (memory.max_writes if write else memory.max_reads) * memory.ports * EFFICIENCY
    if not write:
        words = dict(configuration.reorder_words)[channel]
        outstanding = min(outstanding, words / max(memory.burst // 16, 1))
    latency = memory.write_latency if write else memory.read_latency
    return min(memory.bandwidth, memory.burst * outstanding / latency * EFFICIENCY)


def copy_cycles(source: Memory, target: Memory, size: int, configuration: Configuration) -> int:
    """Cycles of a DMA from one memory to another."""
    out = int(size / channel_bandwidth(source, Channel.COPY, configuration)) + source.read_latency
    back = int(size / channel_bandwidth(target, Channel.WRITE, configuration)) + target.write_latency
    return max(out, back)


def read_cycles(memory: Memory, channel: Channel, size: int, configuration: Configuration) -> int:
    """Cycles to see `size` bytes, latency included."""
    return int(size / channel_bandwidth(memory, channel, configuration) + memory.read_latency)


def input_channel(op: NpuOp) -> Channel:
    """The channel that an operation's input comes through."""
    return Channel.IFM_STREAM if op.kind in (OpKind.ELEMENTWISE, OpKind.RESIZE) else Channel.IFM


def burst_bytes(
    elements: int, *, read: bool, tensor: FeatureMap, shape: Hwc, block: Hwc, memory: Memory, cores: int
) -> int:
    """Bytes on the bus for `elements` bytes of int8: those of short bursts count as whole ones.

    Bricks give bursts of a block's columns x 16 bytes, channels-last tensors a block's channels.
    """
    return elements * memory.burst // min(memory.burst, max(_burst(read, tensor, shape, block, cores), 1))


def _burst(read: bool, tensor: FeatureMap, shape: Hwc, block: Hwc, cores: int) -> int:
    if not tensor.linear:
        if shape[1] * BRICK == block[2]:
            return block[1] * block[2]
        return BRICK * block[1] * (1 if read else cores)
    if read:
        return block[1] * block[2] if shape[2] == block[2] else block[2]
    if block[2] <= BRICK and shape[2] == block[2]:
        return block[1] * block[2]
    return min(64, BRICK * cores, block[2])


def measure_access(op: NpuOp, block: Block, shape: Hwc, input_shape: Hwc) -> Access:
    """Elements of an operation, or of a stripe of it.

    Every output block fetches its input block, all channels of it; weights are fetched once for each area of blocks.
    Elementwise operations read and write each element once. Bricks are read and written whole.

    Args:
        op: the operation.
        block: which it runs in.
        shape: of the results; a stripe's where it is cut.
        input_shape: of the first operand.
    """
    write = _stored(shape, op.written)
    if op.kind in (OpKind.ELEMENTWISE, OpKind.RESIZE):
        sizes = [input_shape, *op.input_shapes[1:]]
        reads = [
            0 if math.prod(size) == 1 else _stored(size, tensor) for size, tensor in zip(sizes, op.inputs, strict=True)
        ]
        return Access(reads=(*reads, *_chained_reads(op)), write=write, refetches=0)
    ifm_block = tuple(map(min, input_shape, block.ifm))
    blocks = [ceil_div(shape[axis], min(shape[axis], block.ofm[axis])) for axis in range(3)]
    if op.kind is not OpKind.CONVOLUTION:
        blocks[2] = 1
    depth = round_up(input_shape[2], 1 if op.inputs[0].linear else BRICK)
    passes = ceil_div(op.window.kernel[0], SUBKERNEL) * ceil_div(op.window.kernel[1], SUBKERNEL)
    fetched = ifm_block[0] * ifm_block[1] * depth * passes * math.prod(blocks)
    refetches = blocks[0] * blocks[1] if op.weights is not None else 0
    return Access(reads=(fetched, *_chained_reads(op)), write=write, refetches=refetches)


def _stored(shape: Hwc, tensor: FeatureMap) -> int:
    return shape[0] * shape[1] * (shape[2] if tensor.linear else round_up(shape[2], BRICK))


def _chained_reads(op: NpuOp) -> list[int]:
    return [_stored(tensor.shape, tensor) for tensor in op.read[len(op.inputs) :]]


def feature_traffic(
    op: NpuOp, block: Block, access: Access, memories: Mapping[int, Memory], configuration: Configuration
) -> Traffic:
    """Bytes of feature maps.

    Args:
        op: the operation.
        block: which it runs in.
        access: its elements.
        memories: where each feature map lies, by `id`.
        configuration: of the accelerator.
    """
    traffic = Traffic()
    shapes = [*op.input_shapes, *(tensor.shape for tensor in op.read[len(op.inputs) :])]
    cores = 1 if configuration.is_u85 else configuration.cores
    for position, (tensor, shape, elements) in enumerate(zip(op.read, shapes, access.reads, strict=True)):
        memory = memories[id(tensor)]
        channel = input_channel(op) if position < len(op.inputs) else Channel.IFM_STREAM
        size = burst_bytes(elements, read=True, tensor=tensor, shape=shape, block=block.ifm, memory=memory, cores=cores)
        traffic.add(memory, channel, "features", size)
    memory = memories[id(op.written)]
    shape, elements = op.shape, access.write
    if configuration.is_u85 and op.last.activation:
        # The compiler reckons what an activation writes by the whole tensor, also where it writes a part of one.
        shape, elements = op.written.shape, _stored(op.written.shape, op.written)
    size = burst_bytes(
        elements, read=False, tensor=op.written, shape=shape, block=block.ofm, memory=memory, cores=cores
    )
    traffic.add(memory, Channel.WRITE, "features", size)
    return traffic
