"""The machine that a target describes: engines, memories, and the cost model that reckons with them.

A figure that is not public is None; what needs it says so by name and stops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bitwright.hw_constraints.lower.work import WorkKind
from bitwright.hw_constraints.quantity import Dimension
from bitwright.hw_constraints.target_source import Figure, Source


class EngineKind(StrEnum):
    """What sort of unit computes."""

    MAC_ARRAY = "mac_array"
    TENSOR_CORE = "tensor_core"
    VECTOR = "vector"
    CPU = "cpu"  # the target itself is a processor
    HOST = "host"  # the processor beside the accelerator


class Dataflow(StrEnum):
    """Which operand stays in the array while the others pass by."""

    WEIGHT_STATIONARY = "weight_stationary"
    OUTPUT_STATIONARY = "output_stationary"
    INPUT_STATIONARY = "input_stationary"
    ROW_STATIONARY = "row_stationary"


class Loop(StrEnum):
    """The loops of `lower.work.Work` that an array can run side by side."""

    BATCH = "batch"
    GROUPS = "groups"
    OUT_CHANNELS = "out_channels"
    IN_CHANNELS = "in_channels"
    OUT_Y = "out_y"
    OUT_X = "out_x"
    OUT_PIXELS = "out_pixels"  # rows and columns as one loop, which an array that flattens them needs
    KERNEL_Y = "kernel_y"
    KERNEL_X = "kernel_x"


class Operand(StrEnum):
    """What a memory can hold for a layer."""

    ACTIVATIONS = "activations"  # what the layer reads that the network has computed
    WEIGHTS = "weights"
    OUTPUTS = "outputs"
    PARTIAL_SUMS = "partial_sums"


class MemoryKind(StrEnum):
    """Where a memory stands in the hierarchy."""

    REGISTERS = "registers"
    SRAM = "sram"  # placed by the compiler
    CACHE = "cache"  # filled by the hardware
    DRAM = "dram"  # off the chip


class CostModelKind(StrEnum):
    """Which model reckons a target's cycles."""

    ROOFLINE = "roofline"  # the longer of compute and traffic
    ARRAY = "array"  # temporal utilisation of an unrolled array over its memories
    ETHOS_U = "ethos_u"  # block by block, as Arm's compiler does


@dataclass(frozen=True, kw_only=True)
class Array:
    """How multiply-accumulate units are wired.

    Attributes:
        dataflow: what stays in place.
        unroll: how many iterations of each loop run in one cycle; loops that are not named run one by one.
        unroll_for: what differs for single kinds of work.
    """

    dataflow: Dataflow
    unroll: Mapping[Loop, int]
    unroll_for: Mapping[WorkKind, Mapping[Loop, int]]
    source: Source
    verified: bool

    def unrolled(self, kind: WorkKind) -> Mapping[Loop, int]:
        """The unrolling that one kind of work gets."""
        return self.unroll_for.get(kind, self.unroll)

    def __str__(self) -> str:
        wired = ", ".join(f"{loop} {count}" for loop, count in self.unroll.items())
        return f"{self.dataflow.replace('_', ' ')}; {wired}"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A unit that computes.

    Attributes:
        name: unique in the target.
        kind: what sort of unit.
        count: how many equal ones there are; every figure is that of one.
        runs: kinds of work that it does.
        operators: operator types that it runs; empty for all of its kinds of work.
        formats: names of the formats it computes in; empty where nothing was said.
        reads: memories that it reads directly.
        writes: memories that it writes directly.
        array: how its multipliers are wired.
        figures: by name: `macs`, `clock`, `power`, `{format}_dense`, `{format}_sparse` (operations per second),
            `{work kind or operator}_elements` (per cycle), `{format}_energy` (per multiply-accumulate).
    """

    name: str
    kind: EngineKind
    count: int = 1
    runs: tuple[WorkKind, ...] = ()
    operators: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    array: Array | None = None
    figures: Mapping[str, Figure]

    @property
    def clock_hz(self) -> float | None:
        """Cycles per second."""
        return _value(self.figures.get("clock"))

    @property
    def macs_per_cycle(self) -> float | None:
        """Multiply-accumulates per cycle of one unit."""
        return _value(self.figures.get("macs"))

    def macs_per_second(self, fmt: str) -> float | None:
        """Dense multiply-accumulates per second of all units in one format: its rate, else width times clock."""
        rate = self.figures.get(f"{fmt}_dense")
        if rate is not None:
            return self.count * rate.value / 2
        if self.macs_per_cycle is None or self.clock_hz is None or (self.formats and fmt not in self.formats):
            return None
        return self.count * self.macs_per_cycle * self.clock_hz

    def elements_per_cycle(self, kind: WorkKind, op: str = "") -> Figure | None:
        """Results per cycle of work that multiplies nothing; an operator's own figure before that of its kind."""
        return self.figures.get(f"{op}_elements") or self.figures.get(f"{kind}_elements")


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Accesses in one cycle; `shared` ports either read or write."""

    read: int
    write: int
    shared: int
    source: Source
    verified: bool

    def __str__(self) -> str:
        counts = {"read": self.read, "write": self.write, "read or write": self.shared}
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """What a memory is for.

    Attributes:
        holds: the operands that it keeps.
        double_buffered: whether it is filled while the engines read the other half; None where nothing was said.
    """

    holds: tuple[Operand, ...]
    double_buffered: bool | None
    source: Source
    verified: bool

    def __str__(self) -> str:
        buffers = {None: "", True: ", double buffered", False: ", single buffered"}[self.double_buffered]
        return ", ".join(self.holds).replace("_", " ") + buffers


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A memory.

    Attributes:
        name: unique in the target.
        kind: where it stands.
        use: what it is for; None where nothing was said.
        ports: accesses in one cycle; None where nothing was said.
        figures: by name: `size`, `bandwidth` (of all operands together), `{operand}_bandwidth`, `read_latency`,
            `write_latency`, `burst`, `clock`, `energy` (per byte).
    """

    name: str
    kind: MemoryKind
    use: MemoryUse | None = None
    ports: Ports | None = None
    figures: Mapping[str, Figure]

    @property
    def size_bytes(self) -> int | None:
        """Its capacity."""
        size = self.figures.get("size")
        return None if size is None else int(size.value)

    @property
    def burst_bytes(self) -> int:
        """The smallest access; 1 where nothing was said."""
        burst = self.figures.get("burst")
        return 1 if burst is None else int(burst.value)

    def bytes_per_second(self, clock_hz: float | None = None, operand: Operand | None = None) -> float | None:
        """Its bandwidth for one operand, or for all together (the sum where only operands have figures of their own).

        None where a figure is missing.

        Args:
            clock_hz: the engine's clock, for a bandwidth that is given per cycle; the memory's own clock goes first.
            operand: whose bandwidth.
        """
        clock_hz = _value(self.figures.get("clock")) or clock_hz
        figure = (self.figures.get(f"{operand}_bandwidth") if operand else None) or self.figures.get("bandwidth")
        if figure is not None or operand is not None:
            return bytes_per_second(figure, clock_hz)
        own = [bytes_per_second(self.figures.get(f"{each}_bandwidth"), clock_hz) for each in Operand]
        return sum(each for each in own if each is not None) or None

    def holds_operand(self, operand: Operand) -> bool:
        """Whether it is for such an operand."""
        return self.use is None or operand in self.use.holds


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """Weights of which only `kept` of each `group` neighbours along the input channels are not zero.

    Attributes:
        formats: names of the formats in which it is faster.
        operators: operator types in which it is.
    """

    kept: int
    group: int
    formats: tuple[str, ...]
    operators: frozenset[str]
    source: Source
    verified: bool

    def __str__(self) -> str:
        return f"{self.kept}:{self.group}"


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Which model reckons this target's time, and what it needs besides engines and memories.

    Attributes:
        kind: the model.
        figures: its own, by the names that `target_needs.COST_FIGURES` lists for it.
    """

    kind: CostModelKind
    figures: Mapping[str, Figure] = field(default_factory=dict)


def _value(figure: Figure | None) -> float | None:
    return None if figure is None else figure.value


def bytes_per_second(bandwidth: Figure | None, clock_hz: float | None) -> float | None:
    """A bandwidth that is given per second or per cycle; None where a figure is missing."""
    if bandwidth is None:
        return None
    if bandwidth.quantity.dimension is Dimension.BYTES_PER_CYCLE:
        return None if clock_hz is None else bandwidth.value * clock_hz
    return bandwidth.value
