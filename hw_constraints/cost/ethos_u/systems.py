"""An Ethos-U with its memories: clock, sizes and bandwidths from the target, microarchitecture by its name."""

from __future__ import annotations

from bitwright.hw_constraints import target_hardware
from bitwright.hw_constraints.cost.ethos_u.figures import CONFIGURATIONS, Configuration, Memory, System
from bitwright.hw_constraints.target_hardware import CostModelKind, Engine, EngineKind, MemoryKind
from bitwright.hw_constraints.target_types import Capability, Target
from bitwright.quant.errors import InputError

# Vela sets no limit where the processor shares the SRAM (Shared_Sram); whether a network fits is the linter's to say.
UNLIMITED = 1 << 32


def system_of(target: Target) -> System:
    """Reads a target's accelerator and its memories.

    Raises:
        InputError: the target is no Ethos-U, of a configuration that is not known here, or lacks a figure.
    """
    target.require(Capability.COST)
    if target.cost is None or target.cost.kind is not CostModelKind.ETHOS_U:
        raise InputError(f"target {target.id!r}: cost.model is not {CostModelKind.ETHOS_U.value!r}")
    engine = next((each for each in target.engines.values() if each.kind is EngineKind.MAC_ARRAY), None)
    if engine is None or engine.clock_hz is None:
        raise InputError(
            f"target {target.id!r}: the Ethos-U cost model needs an engine of kind 'mac_array' and its clock"
        )
    configuration = _configuration(target, engine)
    on_chip = _memory(target, engine, configuration, MemoryKind.SRAM)
    off_chip = _memory(target, engine, configuration, MemoryKind.DRAM)
    spills = off_chip.name in engine.writes
    return System(
        configuration=configuration,
        clock_hz=engine.clock_hz,
        on_chip=on_chip,
        off_chip=off_chip,
        feature_maps=off_chip if spills else on_chip,
        staging_limit=(target.memories[on_chip.name].size_bytes or UNLIMITED) if spills else UNLIMITED,
    )


def _configuration(target: Target, engine: Engine) -> Configuration:
    """By the target's id or that of what it extends, else the only one with as many multiply-accumulates a cycle."""
    for name in (target.id, target.extends or ""):
        if name in CONFIGURATIONS:
            return CONFIGURATIONS[name]
    macs = engine.count * int(engine.macs_per_cycle or 0)
    equal = [each for each in CONFIGURATIONS.values() if each.total_macs == macs]
    if len(equal) == 1:
        return equal[0]
    known = ", ".join(CONFIGURATIONS)
    raise InputError(
        f"target {target.id!r}: no Ethos-U with {macs} MAC/cycle is known to the cost model; there are: {known}"
    )


def _memory(target: Target, engine: Engine, configuration: Configuration, kind: MemoryKind) -> Memory:
    found = next((memory for memory in target.memories.values() if memory.kind is kind), None)
    if found is None:
        raise InputError(f"target {target.id!r}: the Ethos-U cost model needs a memory of kind {kind.value!r}")
    rate = found.bytes_per_second(engine.clock_hz)
    if rate is None or engine.clock_hz is None:
        raise InputError(f"target {target.id!r}: memories.{found.name}.bandwidth is missing")
    prefix = "sram" if kind is MemoryKind.SRAM else "off_chip"
    return Memory(
        name=found.name,
        bandwidth=rate / engine.clock_hz,
        read_latency=_cycles(found, "read_latency"),
        write_latency=_cycles(found, "write_latency"),
        burst=found.burst_bytes,
        ports=_count(target, configuration, f"{prefix}_ports"),
        max_reads=_count(target, configuration, f"{prefix}_reads"),
        max_writes=_count(target, configuration, f"{prefix}_writes"),
    )


def _cycles(memory: target_hardware.Memory, name: str) -> int:
    figure = memory.figures.get(name)
    return 0 if figure is None else int(figure.value)


def _count(target: Target, configuration: Configuration, name: str) -> int:
    """Ports and transactions under way; the channels of U85 alone are limited by them."""
    figure = target.cost.figures.get(name) if target.cost else None
    if figure is None:
        if configuration.is_u85:
            raise InputError(f"target {target.id!r}: cost.figures.{name} is missing; Ethos-U85's channels hang on it")
        return 1
    return int(figure.value)
