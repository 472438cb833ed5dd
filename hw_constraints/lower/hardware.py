"""What the lowering reads of a target: its engines in order of preference, and its memories in their parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from bitwright.hw_constraints.lower.work import WorkKind
from bitwright.hw_constraints.target_hardware import Engine, EngineKind, Memory, MemoryKind, Operand
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.formats import IntFormat

HOST = "host"


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A target in the parts that it has for a program.

    Attributes:
        engines: those of the accelerator.
        host: the name of the processor beside it.
        beside: the memory beside the engines that the compiler fills; None where hardware fills it (a cache).
        cache: the largest memory on the chip that hardware fills, where there is no other.
        behind: the memory in which a program, its inputs and its results lie, no faster than the link to it.
    """

    engines: tuple[Engine, ...]
    host: str
    beside: Memory | None
    cache: Memory | None
    behind: Memory

    @property
    def on_chip(self) -> Memory | None:
        """Where tensors stay between two operations, by the compiler's will or the hardware's."""
        return self.beside or self.cache

    def memory(self, name: str) -> Memory | None:
        """The memory of that name, as the accelerator meets it."""
        return next((each for each in (self.beside, self.cache, self.behind) if each and each.name == name), None)

    def engine_for(self, kind: WorkKind, op: str) -> Engine | None:
        """The engine that names the operator, else the first that does such work."""
        named = (engine for engine in self.engines if op in engine.operators)
        suited = (engine for engine in self.engines if kind in engine.runs and not engine.operators)
        return next(named, None) or next(suited, None)

    def engine(self, name: str) -> Engine | None:
        """The accelerator's engine of that name."""
        return next((engine for engine in self.engines if engine.name == name), None)


def hardware_of(target: Target) -> Hardware:
    """Reads a target's machine.

    Where the file describes no memory off the chip, one without figures stands for it.
    """
    engines = tuple(each for each in target.engines.values() if each.kind is not EngineKind.HOST)
    hosts = [each.name for each in target.engines.values() if each.kind is EngineKind.HOST]
    memories = list(target.memories.values())
    sram = [each for each in memories if each.kind is MemoryKind.SRAM and each.size_bytes and _for_activations(each)]
    beside = max(sram, key=lambda memory: memory.size_bytes or 0, default=None)
    caches = [each for each in memories if each.kind is MemoryKind.CACHE and each.size_bytes]
    cache = None if beside else max(caches, key=lambda memory: memory.size_bytes or 0, default=None)
    outside = [each for each in memories if each.kind is MemoryKind.DRAM]
    behind = outside[0] if outside else Memory(name="off_chip", kind=MemoryKind.DRAM, figures={})
    behind = _over_link(target, beside, behind, engines)
    host = hosts[0] if hosts else HOST
    return Hardware(engines=engines, host=host, beside=beside, cache=cache, behind=behind)


def _over_link(target: Target, beside: Memory | None, behind: Memory, engines: tuple[Engine, ...]) -> Memory:
    """The memory behind with the bandwidth of the link over which it is filled from, where that is the narrower one.

    Nothing changes where an engine reads that memory itself, or a link's bandwidth is not known. What goes to and fro
    shares a link that goes both ways.
    """
    if beside is None or any(behind.name in (*engine.reads, *engine.writes) for engine in engines):
        return behind
    clock = next((engine.clock_hz for engine in engines if engine.clock_hz), None)
    limit = behind.bytes_per_second(clock)
    for link in target.links.values():
        width = link.bytes_per_second(clock) if {link.start, link.end} == {beside.name, behind.name} else None
        if width is not None and (limit is None or width < limit):
            limit = width
            behind = replace(behind, figures={**behind.figures, "bandwidth": link.figures["bandwidth"]})
    return behind


def _for_activations(memory: Memory) -> bool:
    return memory.use is None or Operand.ACTIVATIONS in memory.use.holds


@lru_cache(maxsize=256)
def format_name(bits: int) -> str:
    """The integer format of so many bits, by which figures are named."""
    return IntFormat(name=f"int{bits}", bits=bits, signed=True).name
