"""The microarchitecture of each Ethos-U configuration, and the memories around it.

Source of what is marked [V], here and in the other files: ethos-u-vela 5.2.0, the source distribution on PyPI, with its
tables of accelerator configurations and of cycles per element in ethosu/regor/architecture/ethosu{55,65,85}, and its
scheduler in ethosu/regor/compiler. Clocks and memories come from the target's file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

Hwc = tuple[int, int, int]  # rows, columns, channels

BRICK = 16  # channels that lie together in the brick format (NHCWB16) [V]
SUBKERNEL = 8  # a kernel is worked off in pieces of at most 8 x 8 taps [V]
SCALE_BYTES = 10  # bias, scale and shift of one output channel [V]


class Channel(StrEnum):
    """The read and write channels of Ethos-U85's memory interface; each has a reorder buffer of its own [V]."""

    COPY = "copy"
    IFM_STREAM = "ifm_stream"
    WEIGHT = "weight"
    FAST_WEIGHT = "fast_weight"
    IFM = "ifm"
    SCALE = "scale"
    WRITE = "write"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A memory as the accelerator sees it.

    Attributes:
        name: `sram`, `dram` or `flash`.
        bandwidth: bytes a cycle, all ports together.
        read_latency: cycles.
        write_latency: cycles.
        burst: the longest burst in bytes.
        ports: how many ports lead to it.
        max_reads: outstanding reads per port.
        max_writes: outstanding writes per port.
    """

    name: str
    bandwidth: float
    read_latency: int
    write_latency: int
    burst: int
    ports: int
    max_reads: int
    max_writes: int


@dataclass(frozen=True, kw_only=True)
class OutputCycles:
    """Cycles per element of the output unit [V]; both families index it by what the element comes from."""

    default: float
    multiply: float
    add: float
    max_pool: float
    activation_table: float
    activation_clip: float
    resize: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One configuration of the accelerator.

    Attributes:
        family: `u55` (Ethos-U55 and U65 share a microarchitecture) or `u85`.
        macs: multiply-accumulates a cycle and core.
        cores: MAC units that share the output channels; on U85 the weight decoders.
        micro_blocks: outputs that are computed at once; U85 chooses one of several for each operation.
        ifm_depth: input channels that a MAC unit reads at once.
        output: of the output unit.
        largest_block: rows, columns and channels of the largest output block.
        banks: 1 KiB banks of shared RAM (u55).
        ifm_granule: banks by which the input buffer grows (u55).
        elementwise_granule: the same for elementwise operations (u55).
        accumulator_granule: banks by which the accumulators grow (u55).
        ifm_ram: bytes of the input buffer (u85).
        accumulator_ram: bytes of the accumulators (u85).
        chaining_ram: bytes of the chaining buffers (u85).
        output_ram: bytes of the output buffer (u85).
        depthwise_padding: zero weights behind each group of depthwise taps (u85).
        reorder_bytes: of each read channel's reorder buffer, in words of 16 bytes (u85).
    """

    family: str
    macs: int
    cores: int
    micro_blocks: tuple[Hwc, ...]
    ifm_depth: int
    output: OutputCycles
    largest_block: Hwc
    banks: int = 0
    ifm_granule: int = 0
    elementwise_granule: int = 0
    accumulator_granule: int = 0
    ifm_ram: int = 0
    accumulator_ram: int = 0
    chaining_ram: int = 0
    output_ram: int = 0
    depthwise_padding: int = 0
    reorder_words: tuple[tuple[Channel, int], ...] = ()

    @property
    def total_macs(self) -> int:
        """Multiply-accumulates a cycle of the whole accelerator."""
        return self.macs if self.is_u85 else self.macs * self.cores

    @property
    def is_u85(self) -> bool:
        """Whether it is of the U85 family."""
        return self.family == "u85"


@dataclass(frozen=True, kw_only=True)
class System:
    """An accelerator with its memories.

    Attributes:
        configuration: the accelerator.
        clock_hz: its clock.
        on_chip: the SRAM that feature maps and weight buffers are staged in.
        off_chip: where weights lie.
        feature_maps: where feature maps lie that nobody staged; on-chip where the SRAM is shared with the processor.
        staging_limit: bytes of SRAM that staging may use.
    """

    configuration: Configuration
    clock_hz: float
    on_chip: Memory
    off_chip: Memory
    feature_maps: Memory
    staging_limit: int

    @property
    def spills(self) -> bool:
        """Whether feature maps lie off chip unless they are staged."""
        return self.feature_maps is not self.on_chip


# [V] The accelerator configurations, figure for figure. On U65-512 two cores of 256 MACs share the channels.
_U55_BLOCK: Hwc = (32, 64, 128)
_U85_BLOCK: Hwc = (128, 128, 1024)

CONFIGURATIONS = {
    "ethos-u55-128": Configuration(
        family="u55",
        macs=128,
        cores=1,
        micro_blocks=((1, 2, 8),),
        ifm_depth=8,
        output=OutputCycles(
            default=0.5, multiply=0.75, add=1.5, max_pool=0.25, activation_table=1.0, activation_clip=0.5
        ),
        largest_block=_U55_BLOCK,
        banks=24,
        ifm_granule=4,
        elementwise_granule=4,
        accumulator_granule=8,
    ),
    "ethos-u65-512": Configuration(
        family="u55",
        macs=256,
        cores=2,
        micro_blocks=((2, 2, 8),),
        ifm_depth=8,
        output=OutputCycles(
            default=0.125, multiply=0.1875, add=0.375, max_pool=0.0625, activation_table=0.5, activation_clip=0.125
        ),
        largest_block=_U55_BLOCK,
        banks=48,
        ifm_granule=8,
        elementwise_granule=8,
        accumulator_granule=16,
    ),
    "ethos-u85-1024": Configuration(
        family="u85",
        macs=1024,
        cores=4,
        micro_blocks=((2, 2, 32), (1, 4, 32), (2, 4, 16)),
        ifm_depth=8,
        output=OutputCycles(
            default=0.0625,
            multiply=0.0625,
            add=0.0625,
            max_pool=0.0625,
            activation_table=0.0625,
            activation_clip=0.0625,
            resize=0.0625,
        ),
        largest_block=_U85_BLOCK,
        ifm_ram=16384,
        accumulator_ram=65536,
        chaining_ram=4096,
        output_ram=6144,
        depthwise_padding=6,
        reorder_words=(
            (Channel.COPY, 256),
            (Channel.IFM_STREAM, 256),
            (Channel.WEIGHT, 416),
            (Channel.FAST_WEIGHT, 208),
            (Channel.IFM, 256),
            (Channel.SCALE, 16),
        ),
    ),
}


def ceil_div(value: int, divisor: int) -> int:
    """⌈value / divisor⌉."""
    return -(-value // divisor)


def round_up(value: int, multiple: int) -> int:
    """The next multiple."""
    return -(-value // multiple) * multiple
