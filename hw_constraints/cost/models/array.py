"""An array of multiply-accumulate units over its memories: the lowering's own tiles, and what they wait for.

Work that multiplies nothing goes as fast as the target's figure for it, else as its operands pass the ports of the
memory beside the engine. Weights that come in while the operation before runs are hidden as far as that operation
leaves the way to the memory behind free.
"""

from __future__ import annotations

from dataclasses import replace

from bitwright.hw_constraints.cost.array import nest_cycles
from bitwright.hw_constraints.cost.estimate import LayerEstimate, Reckoning
from bitwright.hw_constraints.cost.models.roofline import host_layer, roofline_layer
from bitwright.hw_constraints.cost.roofline import energy_uj, rate_of
from bitwright.hw_constraints.lower.hardware import Hardware, hardware_of
from bitwright.hw_constraints.lower.program import LoweredGraph, LoweredOp
from bitwright.hw_constraints.target_hardware import Engine, Operand
from bitwright.hw_constraints.target_types import Target


def estimate(lowered: LoweredGraph) -> Reckoning:
    """Every operation by itself, then what prefetching hides."""
    target = lowered.target
    hardware = hardware_of(target)
    layers: list[LayerEstimate] = []
    for op in lowered.ops:
        layer = array_layer(op, target, hardware)
        layers.append(_hidden(op, layer, layers[-1], hardware) if layers and op.prefetched else layer)
    return Reckoning(tuple(layers), _assumptions(lowered, hardware))


def array_layer(op: LoweredOp, target: Target, hardware: Hardware) -> LayerEstimate:
    """One operation, nothing fetched ahead."""
    engine = hardware.engine(op.block.engine)
    if engine is None:
        return host_layer(op)
    clock = engine.clock_hz
    if op.work is None or clock is None:
        return roofline_layer(op, target, hardware)
    multiplies = op.work.macs > 0 and op.tiling is not None and engine.array is not None
    if multiplies:
        assert op.tiling is not None and engine.array is not None
        parts = nest_cycles(op.work, op.tiling, engine.array.unrolled(op.work.kind))
        computing, cycles = parts.computing + parts.skew, parts.total
    else:
        computing = cycles = _element_cycles(op, engine, hardware)
    behind_cycles = _behind_cycles(op, hardware, clock)
    cycles = max(cycles, behind_cycles)
    width = engine.macs_per_cycle
    fmt, _ = rate_of(op, engine, target)
    return LayerEstimate(
        name=op.name,
        engine=engine.name,
        us=cycles / clock * 1e6,
        compute_us=computing / clock * 1e6,
        transfer_us=behind_cycles / clock * 1e6,
        cycles=cycles,
        macs=op.work.macs,
        utilisation=op.work.macs / (width * cycles) if width and multiplies and cycles else None,
        traffic=op.traffic,
        bound_by=_bound(op, computing, behind_cycles, hardware, multiplies),
        energy_uj=energy_uj(op, engine, target, fmt, dict(op.traffic)),
    )


def _bound(op: LoweredOp, computing: float, behind_cycles: float, hardware: Hardware, multiplies: bool) -> str:
    if behind_cycles > computing:
        return hardware.behind.name
    return "compute" if multiplies or hardware.beside is None else hardware.beside.name


def _element_cycles(op: LoweredOp, engine: Engine, hardware: Hardware) -> float:
    """By the target's figure for such work, else by the ports through which its operands pass."""
    assert op.work is not None and engine.clock_hz is not None
    figure = engine.elements_per_cycle(op.work.kind, op.block.op)
    if figure is not None:
        return op.work.results / figure.value
    if hardware.beside is None or hardware.beside.name not in op.traffic:
        return 0.0
    each = op.traffic[hardware.beside.name]
    cycles = 0.0
    for operand, size in ((Operand.ACTIVATIONS, each.read), (Operand.OUTPUTS, each.written)):
        bandwidth = hardware.beside.bytes_per_second(engine.clock_hz, operand)
        cycles = max(cycles, size * engine.clock_hz / bandwidth if bandwidth else 0.0)
    return cycles


def _behind_cycles(op: LoweredOp, hardware: Hardware, clock: float) -> float:
    bandwidth = hardware.behind.bytes_per_second(clock)
    each = op.traffic.get(hardware.behind.name)
    return each.total * clock / bandwidth if each and bandwidth else 0.0


def _hidden(op: LoweredOp, layer: LayerEstimate, before: LayerEstimate, hardware: Hardware) -> LayerEstimate:
    """The layer without what its prefetched weights would have waited for."""
    bandwidth = hardware.behind.bytes_per_second(1.0)
    if layer.us is None or before.us is None or not bandwidth or layer.cycles is None:
        return layer
    free_us = max(0.0, before.us - before.transfer_us)
    waiting_us = max(0.0, layer.us - layer.compute_us)
    hidden = min(op.prefetched / bandwidth * 1e6, free_us, waiting_us)
    us = layer.us - hidden
    share = us / layer.us if layer.us else 1.0
    transfer = layer.transfer_us - hidden
    return replace(
        layer,
        us=us,
        cycles=layer.cycles * share,
        transfer_us=transfer,
        hidden_us=hidden,
        bound_by="compute"
        if transfer <= layer.compute_us and layer.bound_by == hardware.behind.name
        else layer.bound_by,
        utilisation=layer.utilisation / share if layer.utilisation and share else layer.utilisation,
    )


def _assumptions(lowered: LoweredGraph, hardware: Hardware) -> tuple[str, ...]:
    notes = []
    for engine in hardware.engines:
        if engine.count > 1:
            notes.append(f"one of the {engine.count} {engine.name} runs the network")
    kinds = sorted(
        {op.kind for op in lowered.ops if op.kind and op.work and not op.work.macs and op.block.on_accelerator}
    )
    silent = [kind for kind in kinds if not any(e.elements_per_cycle(kind) for e in hardware.engines)]
    if silent and hardware.beside:
        notes.append(
            f"{', '.join(silent)}: as fast as operands pass {hardware.beside.name}; the target's file says no rate"
        )
    return tuple(notes)
