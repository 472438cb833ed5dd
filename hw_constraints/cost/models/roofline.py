"""A roof for every operation, and the time to start it: for targets with rates and bandwidths, and no public array."""

from __future__ import annotations

from bitwright.hw_constraints.cost.estimate import LayerEstimate, Reckoning
from bitwright.hw_constraints.cost.roofline import energy_uj, rate_of, roof_of
from bitwright.hw_constraints.lower.hardware import Hardware, hardware_of
from bitwright.hw_constraints.lower.program import LoweredGraph, LoweredOp
from bitwright.hw_constraints.target_types import Target


def estimate(lowered: LoweredGraph) -> Reckoning:
    """Every operation by itself, one behind the other."""
    target = lowered.target
    hardware = hardware_of(target)
    layers = tuple(roofline_layer(op, target, hardware) for op in lowered.ops)
    return Reckoning(layers, _assumptions(lowered, hardware))


def roofline_layer(op: LoweredOp, target: Target, hardware: Hardware) -> LayerEstimate:
    """One operation."""
    engine = hardware.engine(op.block.engine)
    if engine is None:
        return host_layer(op)
    roof = roof_of(op, engine, target, hardware)
    figure = target.cost.figures.get("launch") if target.cost else None
    launch = figure.value if figure else 0.0
    macs = op.work.macs if op.work else 0
    seconds = roof.seconds + launch
    _, rate = rate_of(op, engine, target)
    return LayerEstimate(
        name=op.name,
        engine=engine.name,
        us=seconds * 1e6,
        compute_us=roof.compute_s * 1e6,
        transfer_us=roof.transfer_s * 1e6,
        cycles=seconds * engine.clock_hz if engine.clock_hz else None,
        macs=macs,
        utilisation=macs / (rate * seconds) if rate and macs and seconds else None,
        traffic=op.traffic,
        bound_by=roof.bound_by if roof.seconds >= launch else "launch",
        energy_uj=energy_uj(op, engine, target, roof.fmt, dict(op.traffic)),
    )


def host_layer(op: LoweredOp) -> LayerEstimate:
    """An operation off the accelerator, for which the target has no figures."""
    why = "no figures of the host" if op.block.engine else "no toolchain takes it"
    return LayerEstimate(
        name=op.name,
        engine=op.block.engine or "none",
        us=None,
        macs=op.work.macs if op.work else 0,
        traffic=op.traffic,
        bound_by=why,
    )


def _assumptions(lowered: LoweredGraph, hardware: Hardware) -> tuple[str, ...]:
    notes = []
    if hardware.cache is not None:
        notes.append(
            f"tensors that fit into {hardware.cache.name} together stay there between two operations; "
            + ("its bandwidth is no bound" if hardware.cache.bytes_per_second(1.0) is None else "at its bandwidth")
        )
    silent = [each for each in (hardware.beside, hardware.behind) if each and not each.bytes_per_second(1.0)]
    notes += [f"{each.name} is no bound: the target's file has no memories.{each.name}.bandwidth" for each in silent]
    if lowered.target.cost and "launch" not in lowered.target.cost.figures:
        notes.append("starting an operation takes no time: the target's file has no cost.figures.launch")
    return tuple(notes)
