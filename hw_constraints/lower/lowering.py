"""The passes one after the other: from a network and a target to the program that would run there."""

from __future__ import annotations

from dataclasses import replace

from bitwright.hw_constraints.lower.allocate import Buffer, Placement, allocate
from bitwright.hw_constraints.lower.decompose import decompose
from bitwright.hw_constraints.lower.fuse import fuse
from bitwright.hw_constraints.lower.hardware import Hardware, hardware_of
from bitwright.hw_constraints.lower.layout import layout
from bitwright.hw_constraints.lower.memory import buffers_beside, crowded, memory_plan
from bitwright.hw_constraints.lower.partition import decide, partition
from bitwright.hw_constraints.lower.place import Residency, place
from bitwright.hw_constraints.lower.program import LoweredGraph, LoweredOp, Program
from bitwright.hw_constraints.lower.schedule import schedule
from bitwright.hw_constraints.lower.tiled_ops import tile
from bitwright.hw_constraints.target_types import Capability, Target
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph
from bitwright.quant.plan import QuantPlan
from bitwright.quant.plan import plan as plan_of
from bitwright.quant.scheme import QParamsSpec

# How often a tensor is sent behind because of holes between buffers before the weights fetched ahead are given up.
_ATTEMPTS = 2
# Of the memory beside the engines, what tensors leave free, one after the other until every buffer has an address:
# nothing, a 16th, and so on up to everything, with which tiles alone lie there.
_KEPT_FREE = (0, 16, 8, 4, 2, 1)


def lower(graph: Graph, target: Target, *, plan: QuantPlan | None = None) -> LoweredGraph:
    """Lowers a network.

    What was lowered before is not lowered again: the search for tilings remembers each loop nest, so a network of
    which one layer has changed takes the time of the passes that only walk over it.

    Args:
        graph: the network, with static shapes.
        target: the accelerator.
        plan: which tensor is in which format; by the target's default scheme when not given.

    Raises:
        InputError: the target's file does not say enough, a shape is open, or a tensor exceeds every memory.
    """
    target.require(Capability.LOWER)
    _check_static(graph)
    network = decompose(graph, target)
    if plan is None or network.graph is not graph:
        plan = plan_of(network.graph, target.scheme() if plan is None else plan.scheme)
    _check_scales(plan, target)
    program = fuse(network, target, plan, decide(network.graph, target, plan))
    program = layout(partition(program))
    hardware = hardware_of(target)
    capacity = hardware.beside.size_bytes or 0 if hardware.beside else 0
    needed = 0
    for share in _KEPT_FREE:
        residency = place(program, hardware, kept_free=capacity // share if share else 0)
        ops, residency = tile(program, hardware, residency)
        ops = schedule(ops, program, hardware, residency)
        found = _allocated(ops, program, hardware, residency)
        if isinstance(found, LoweredGraph):
            return found
        needed = found
    raise InputError(
        f"the program needs {needed:,} bytes beside the engines of {target.id}, which have "
        f"{capacity:,}: split the largest layers, or lower the resolution"
    )


def _check_static(graph: Graph) -> None:
    for info in graph.tensors.values():
        if None in info.shape:
            raise InputError(
                f"tensor {info.ref} has the open shape {list(info.shape)}; lowering needs every size: capture the "
                "network with static shapes"
            )


def _check_scales(plan: QuantPlan, target: Target) -> None:
    """Scales of blocks, and scales that follow the data, take hardware of their own."""
    numerics = target.numerics
    weights = [*numerics.weights, *(each for specs in numerics.operator_weights.values() for each in specs)]
    for what, specs, permitted in (
        ("activation", plan.activations, numerics.activations),
        ("weight", plan.weights, [*weights, *numerics.activations]),
    ):
        for ref, spec in specs.items():
            if spec.block_size is None and not spec.dynamic:
                continue
            if not any((spec.block_size, spec.dynamic) == (each.block_size, each.dynamic) for each in permitted):
                known = " or ".join(dict.fromkeys(map(_scales, permitted)))
                raise InputError(
                    f"{what} {ref} has {_scales(spec)}; {target.id} runs {what}s with {known}: quantize the network "
                    "by the target's scheme"
                )


def _scales(spec: QParamsSpec) -> str:
    size = f"a scale for each block of {spec.block_size}" if spec.block_size else f"scales {spec.granularity}"
    return f"{size}, computed from the data" if spec.dynamic else size


def _allocated(
    ops: tuple[LoweredOp, ...], program: Program, hardware: Hardware, residency: Residency
) -> LoweredGraph | int:
    """With an address for every buffer; or, where they do not fit, the bytes that they take."""
    capacity = hardware.beside.size_bytes if hardware.beside else None
    for _ in range(_ATTEMPTS):
        buffers, placement = _placed(ops, program, residency, capacity)
        if placement.fits:
            break
        ref = crowded(placement, buffers, residency)
        if ref is None:  # holes between tiles alone: without weights that come ahead there are none
            ops = tuple(replace(op, prefetched=0) for op in ops)
            buffers, placement = _placed(ops, program, residency, capacity)
            break
        size = residency.lifetimes[ref].bytes
        why = f"{ref} ({size:,} bytes) goes to {hardware.behind.name}: holes between the buffers leave it no room"
        residency = residency.without({ref: why})
        ops, residency = tile(program, hardware, residency)
        ops = schedule(ops, program, hardware, residency)
    if not placement.fits:
        return placement.peak_bytes
    memory = memory_plan(ops, program, hardware, residency, placement, buffers)
    return LoweredGraph(program=program, ops=ops, memory=memory)


def _placed(
    ops: tuple[LoweredOp, ...], program: Program, residency: Residency, capacity: int | None
) -> tuple[list[Buffer], Placement]:
    """A quick placement, and a thorough one where that does not fit."""
    buffers = buffers_beside(ops, program, residency) if capacity is not None else []
    placement = allocate(buffers, capacity, effort=0)
    return buffers, placement if placement.fits else allocate(buffers, capacity)
