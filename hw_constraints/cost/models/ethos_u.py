"""Arm's Ethos-U as its compiler reckons it (`cost.ethos_u`), joined to the program's operations by their results."""

from __future__ import annotations

from bitwright.hw_constraints.cost.estimate import LayerEstimate, Reckoning
from bitwright.hw_constraints.cost.ethos_u.estimate import network_cost
from bitwright.hw_constraints.cost.ethos_u.graph_reader import GATE
from bitwright.hw_constraints.cost.ethos_u.schedule import NetworkCost, OpCost
from bitwright.hw_constraints.cost.models.roofline import estimate as roofline_estimate
from bitwright.hw_constraints.cost.models.roofline import host_layer, roofline_layer
from bitwright.hw_constraints.lower.hardware import hardware_of
from bitwright.hw_constraints.lower.program import LoweredGraph, LoweredOp, Traffic
from bitwright.hw_constraints.target_hardware import Engine
from bitwright.quant.errors import InputError


def estimate(lowered: LoweredGraph) -> Reckoning:
    """The compiler's own schedule, operation by operation.

    A roof, which is said, for each operation that the model does not know; no figure for those on the host. To the
    schedule both are gaps: their operands are handed out, their results come in. With 16-bit activations the whole
    network gets roofs: the compiler then chooses other blocks and accumulators, and its estimate of those was not
    rebuilt.
    """
    hardware = hardware_of(lowered.target)
    aside = [op for op in lowered.ops if not op.block.on_accelerator]
    try:
        _require_eight_bits(lowered)
        cost = network_cost(
            lowered.program.graph, lowered.target, {node.name for op in aside for node in op.block.nodes}
        )
    except InputError as error:
        reckoned = roofline_estimate(lowered)
        why = f"a roofline instead of the Ethos-U model: {error}"
        return reckoned._replace(assumptions=(why, *reckoned.assumptions))
    unknown = {each.node.name: each.reason for each in cost.unmodelled}
    costs = _by_operation(lowered, cost)
    layers: list[LayerEstimate] = []
    notes: list[str] = []
    for op in lowered.ops:
        reason = next((unknown[node.name] for node in op.block.nodes if node.name in unknown), None)
        if not op.block.on_accelerator:
            layers.append(host_layer(op))
        elif reason is not None:
            layers.append(roofline_layer(op, lowered.target, hardware))
            notes.append(f"a roofline for {op.name}: {reason}")
        else:
            layers.append(_layer(op, costs.get(op.name, []), hardware.engine(op.block.engine)))
    if aside:
        notes.append(f"no figures for what the accelerator does not run: {', '.join(op.name for op in aside)}")
    notes += [f"operation {each.name} has no counterpart in the program" for each in costs.get("", [])]
    peak, memory = cost.on_chip_peak, cost.system.on_chip.name
    if cost.ops:
        cut = f"; {len(cost.cascades)} cascades run several operations in stripes" if cost.cascades else ""
        notes.append(f"{memory}: the compiler's own schedule, as modelled, peaks at {peak:,} bytes{cut}")
    return Reckoning(tuple(layers), tuple(notes), {memory: peak} if cost.ops else {})


def _require_eight_bits(lowered: LoweredGraph) -> None:
    plan = lowered.program.plan
    wide = [(ref, spec.format) for ref, spec in plan.activations.items() if spec.format.bits > 8]
    if wide:
        raise InputError(
            f"it knows activations of 8 bits, and {wide[0][0]} is {wide[0][1].name} ({len(wide)} of "
            f"{len(plan.activations)} tensors are wider); MACs are reckoned at int8's rate, so times are lower bounds"
        )


def _by_operation(lowered: LoweredGraph, cost: NetworkCost) -> dict[str, list[OpCost]]:
    """The model's operations by those of the program; under "" what has no counterpart there."""
    owner = {str(ref): op.name for op in lowered.ops for node in op.block.nodes for ref in node.outputs}
    owner |= {str(ref): op.name for op in lowered.ops for ref in op.block.writes}
    for view, source in lowered.program.views.items():
        owner.setdefault(str(view), owner.get(str(lowered.program.stored(source)), ""))
    costs: dict[str, list[OpCost]] = {}
    for each in cost.ops:
        costs.setdefault(owner.get(each.name.removesuffix(GATE), ""), []).append(each)
    return costs


def _layer(op: LoweredOp, costs: list[OpCost], engine: Engine | None) -> LayerEstimate:
    if engine is None or engine.clock_hz is None:
        return host_layer(op)
    clock = engine.clock_hz
    cycles = sum(each.cycles for each in costs)
    compute = sum(each.compute_cycles for each in costs)
    busiest = {name: sum(each.memory_cycles.get(name, 0) for each in costs) for c in costs for name in c.memory_cycles}
    memory = max(busiest, key=lambda name: busiest[name], default="")
    transfer = busiest.get(memory, 0)
    macs = op.work.macs if op.work else 0
    width = engine.macs_per_cycle
    traffic = {name: sum(each.bytes.get(name, 0) for each in costs) for c in costs for name in c.bytes}
    bound = ("compute" if compute >= transfer else memory) if costs else "part of its neighbour"
    return LayerEstimate(
        name=op.name,
        engine=engine.name,
        us=cycles / clock * 1e6,
        compute_us=compute / clock * 1e6,
        transfer_us=transfer / clock * 1e6,
        cycles=float(cycles),
        macs=macs,
        utilisation=macs / (width * cycles) if width and macs and cycles else None,
        traffic={name: Traffic(read=size) for name, size in traffic.items()},
        bound_by=bound,
    )
