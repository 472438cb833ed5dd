"""What lowering and the cost models need of a target: a file that claims a capability without it is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bitwright.hw_constraints.quantity import Dimension
from bitwright.hw_constraints.target_hardware import CostModelKind, EngineKind, MemoryKind
from bitwright.hw_constraints.target_types import Capability, Target
from bitwright.quant.errors import suggestion


@dataclass(frozen=True, kw_only=True)
class CostFigure:
    """A figure of one cost model's own, under `cost.figures`.

    Attributes:
        dimensions: what it may count.
        meaning: one line for messages and the page.
        required: whether the model cannot reckon without it.
    """

    dimensions: tuple[Dimension, ...]
    meaning: str
    required: bool = False


# Which keys `cost.figures` has, by model. A model that reads another figure lists it here.
COST_FIGURES: dict[CostModelKind, dict[str, CostFigure]] = {
    CostModelKind.ROOFLINE: {
        "launch": CostFigure(dimensions=(Dimension.TIME,), meaning="time to start one kernel"),
    },
    CostModelKind.ARRAY: {},
    # Of the memory on and of that off the chip: what limits the channels of Ethos-U85.
    CostModelKind.ETHOS_U: {
        f"{memory}_{what}": CostFigure(
            dimensions=(Dimension.COUNT,), meaning=f"{meaning} of the memory {where} the chip"
        )
        for memory, where in (("sram", "on"), ("off_chip", "off"))
        for what, meaning in (
            ("ports", "number of ports"),
            ("reads", "reads under way per port"),
            ("writes", "writes under way per port"),
        )
    },
}


def missing_figures(target: Target, capability: Capability) -> tuple[str, ...]:
    """What the target would have to say to serve a capability, by the paths of its file; () when it says enough."""
    if capability is Capability.LOWER:
        return tuple(_lowering(target))
    if capability is Capability.COST:
        if target.cost is None:
            return ("cost.model",)
        return (*_lowering(target), *_MODELS[target.cost.kind](target), *_own_figures(target))
    return ()


def problems_of_cost_figures(target: Target) -> Iterator[tuple[str, str]]:
    """Figures under `cost.figures` that the model does not know or that count something else: name and sentence."""
    if target.cost is None:
        return
    known = COST_FIGURES[target.cost.kind]
    for name, figure in target.cost.figures.items():
        if name not in known:
            allowed = ", ".join(known) or "none"
            yield (
                name,
                f": the {target.cost.kind} model has no such figure{suggestion(name, known)}; allowed: {allowed}",
            )
        elif figure.quantity.dimension not in known[name].dimensions:
            accepted = " or ".join(known[name].dimensions)
            yield name, f" = {figure}; it is the {known[name].meaning}, in {accepted}"


def _lowering(target: Target) -> Iterator[str]:
    if not any(engine.runs for engine in target.engines.values() if engine.kind is not EngineKind.HOST):
        yield "engines.*.runs"
    on_chip = [memory for memory in target.memories.values() if memory.kind is not MemoryKind.DRAM]
    if not any(memory.size_bytes for memory in on_chip):
        named = [f"memories.{memory.name}.size" for memory in on_chip]
        yield named[0] if named else "memories.*.size (of a memory on the chip)"


def _roofline(target: Target) -> Iterator[str]:
    fmt = target.numerics.weights[0].format.name
    engines = [engine for engine in target.engines.values() if engine.kind is not EngineKind.HOST]
    if not any(engine.macs_per_second(fmt) for engine in engines):
        name = engines[0].name if engines else "*"
        yield f"engines.{name}.rates.{fmt}.dense (or macs and clock)"
    yield from _bandwidth_off_chip(target)


def _array(target: Target) -> Iterator[str]:
    arrays = [engine for engine in target.engines.values() if engine.array]
    if not arrays:
        yield "engines.*.array"
    for engine in arrays:
        if engine.clock_hz is None:
            yield f"engines.{engine.name}.clock"
    clock = next((engine.clock_hz for engine in arrays if engine.clock_hz), 1.0)
    for memory in target.memories.values():
        if memory.kind is MemoryKind.SRAM and memory.bytes_per_second(clock) is None:
            yield f"memories.{memory.name}.bandwidth"
    yield from _bandwidth_off_chip(target)


def _ethos_u(target: Target) -> Iterator[str]:
    for engine in target.engines.values():
        if engine.kind is EngineKind.MAC_ARRAY:
            if engine.macs_per_cycle is None:
                yield f"engines.{engine.name}.macs"
            if engine.clock_hz is None:
                yield f"engines.{engine.name}.clock"
    for memory in target.memories.values():
        if memory.bytes_per_second(1.0) is None:
            yield f"memories.{memory.name}.bandwidth"


def _bandwidth_off_chip(target: Target) -> Iterator[str]:
    outside = [memory for memory in target.memories.values() if memory.kind is MemoryKind.DRAM]
    if not outside:
        yield "memories.*.bandwidth (of the memory off the chip)"
    for memory in outside:
        links = [link for link in target.links.values() if memory.name in (link.start, link.end)]
        if memory.bytes_per_second(1.0) is None and all(link.bytes_per_second(1.0) is None for link in links):
            yield f"memories.{memory.name}.bandwidth"


def _own_figures(target: Target) -> Iterator[str]:
    assert target.cost is not None
    for name, figure in COST_FIGURES[target.cost.kind].items():
        if figure.required and name not in target.cost.figures:
            yield f"cost.figures.{name}"


_MODELS: dict[CostModelKind, Callable[[Target], Iterator[str]]] = {
    CostModelKind.ROOFLINE: _roofline,
    CostModelKind.ARRAY: _array,
    CostModelKind.ETHOS_U: _ethos_u,
}
