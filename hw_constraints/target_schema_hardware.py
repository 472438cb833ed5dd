"""How the hardware of a target is written: engines, memories, links, layouts, sparsity, the cost model."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StrictBool, StrictInt, model_validator

from bitwright.hw_constraints.lower.work import WorkKind
from bitwright.hw_constraints.operators import OPERATORS
from bitwright.hw_constraints.target_fields import (
    BandwidthFile,
    ByteEnergyFile,
    Count,
    ElementsFile,
    FigureFile,
    FormatName,
    FrequencyFile,
    LatencyFile,
    MacEnergyFile,
    MacsFile,
    OperatorName,
    PowerFile,
    RateFile,
    SizeFile,
    Sourced,
    Strict,
)
from bitwright.hw_constraints.target_hardware import CostModelKind, Dataflow, EngineKind, Loop, MemoryKind, Operand
from bitwright.quant.errors import suggestion


def _flattened_once(unroll: dict[Loop, int]) -> dict[Loop, int]:
    if Loop.OUT_PIXELS in unroll and (Loop.OUT_Y in unroll or Loop.OUT_X in unroll):
        raise ValueError("out_pixels are out_y and out_x as one loop; name either that one or those")
    return unroll


Unroll = Annotated[dict[Loop, Count], AfterValidator(_flattened_once)]


def _work_or_operator(name: str) -> str:
    choices = [*WorkKind, *OPERATORS]
    if name not in choices:
        raise ValueError(f"no such kind of work ({', '.join(WorkKind)}) or operator type{suggestion(name, choices)}")
    return name


def _sparsity_pattern(text: str) -> str:
    match = re.fullmatch(r"([1-9]\d?):([1-9]\d?)", text, re.ASCII)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError("expected how many of how many neighbours are kept, such as 2:4")
    return text


WorkOrOperator = Annotated[str, AfterValidator(_work_or_operator)]
SparsityPattern = Annotated[str, AfterValidator(_sparsity_pattern)]


class ArrayFile(Sourced):
    """How multipliers are wired."""

    dataflow: Dataflow
    unroll: Unroll = Field(min_length=1)
    unroll_for: dict[WorkKind, Unroll] = Field(default_factory=dict)


class RatesFile(Strict):
    """Peak rates of one format."""

    dense: RateFile | None = None
    sparse: RateFile | None = None


class EngineFile(Strict):
    """A unit that computes; all figures are of one of its `count` units."""

    kind: EngineKind
    count: Count = 1
    runs: tuple[WorkKind, ...] = ()
    operators: tuple[OperatorName, ...] = ()
    formats: tuple[FormatName, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    macs: MacsFile | None = None
    clock: FrequencyFile | None = None
    array: ArrayFile | None = None
    rates: dict[FormatName, RatesFile] = Field(default_factory=dict)
    elements: dict[WorkOrOperator, ElementsFile] = Field(default_factory=dict)
    power: PowerFile | None = None
    energy: dict[FormatName, MacEnergyFile] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _array_has_the_macs(self) -> EngineFile:
        if self.array and self.macs:
            wired = 1
            for count in self.array.unroll.values():
                wired *= count
            if wired != self.macs.value.value:
                raise ValueError(f"array.unroll multiplies to {wired}, macs says {self.macs.value}")
        return self


class PortsFile(Sourced):
    """Accesses in one cycle; `shared` ports either read or write."""

    read: Annotated[StrictInt, Field(ge=0, le=1024)] = 0
    write: Annotated[StrictInt, Field(ge=0, le=1024)] = 0
    shared: Annotated[StrictInt, Field(ge=0, le=1024)] = 0

    @model_validator(mode="after")
    def _both_ways(self) -> PortsFile:
        if not self.shared and not (self.read and self.write):
            raise ValueError("a memory has a port to read by and one to write by")
        return self


class UseFile(Sourced):
    """What a memory is for."""

    holds: tuple[Operand, ...] = Field(min_length=1)
    double_buffered: StrictBool | None = None


class MemoryFile(Strict):
    """A memory that an engine reaches, by itself or over links."""

    kind: MemoryKind
    size: SizeFile | None = None
    bandwidth: BandwidthFile | None = None
    operand_bandwidth: dict[Operand, BandwidthFile] = Field(default_factory=dict)
    read_latency: LatencyFile | None = None
    write_latency: LatencyFile | None = None
    burst: SizeFile | None = None
    clock: FrequencyFile | None = None
    energy: ByteEnergyFile | None = None
    ports: PortsFile | None = None
    use: UseFile | None = None


class LinkFile(Sourced):
    """A way from one memory to another."""

    start: str
    end: str
    both_ways: StrictBool = False
    bandwidth: BandwidthFile | None = None
    latency: LatencyFile | None = None


class LayoutFile(Sourced):
    """An order of the elements of an activation."""

    channel_multiple: dict[FormatName, Count] = Field(default_factory=dict)
    alignment: Count = 1
    default: StrictBool = False


class ReformatFile(Sourced):
    """What turning one layout into another takes."""

    start: str
    end: str
    on_the_fly: StrictBool = False
    engine: str | None = None


class SparsityFile(Sourced):
    """Where zeros save time."""

    formats: tuple[FormatName, ...] = Field(min_length=1)
    operators: tuple[OperatorName, ...] = Field(min_length=1)


class CostFile(Strict):
    """Which model reckons cycles, with its own figures."""

    model: CostModelKind
    figures: dict[str, FigureFile] = Field(default_factory=dict)
