"""A lowered network for people: a line for each operation, then totals, stretches, memory and what it all rests on."""

from __future__ import annotations

import re

from bitwright.experiments.lower_command import Lowered
from bitwright.experiments.tables import print_table
from bitwright.hw_constraints.cost.estimate import LatencyEstimate, LayerEstimate
from bitwright.hw_constraints.lower.program import LoweredGraph, LoweredOp

_SHOWN = 8  # of a list of unverified statements or spills


def print_lowered(found: Lowered) -> None:
    """The whole page."""
    program, cost = found.program, found.cost
    layers = {layer.name: layer for layer in cost.layers} if cost else {}
    memories = list(program.memory.peak_bytes)
    heads = ["layer", "operators", "engine", "tiles", *(["cycles", "µs", "MAC use"] if cost else [])]
    heads += [f"{name} bytes" for name in memories] + (["bound by"] if cost else [])
    rows = [[_label(op, program), *_row(op, layers.get(op.name), memories, bool(cost))] for op in program.ops]
    print_table(heads, rows)
    print()
    print(
        "\n".join([*_totals(program, cost, found.no_cost), *_stretches(program), *_memory(program), *_rests_on(cost)])
    )


def _label(op: LoweredOp, program: LoweredGraph) -> str:
    """The module's path; where that names several operations, with the name that `--explain` takes."""
    path = op.block.module_path
    alone = bool(path) and sum(each.block.module_path == path for each in program.ops) == 1
    return path if alone and not names_module(op.name, path) else module_and_name(path, op.name)


def module_and_name(path: str, name: str) -> str:
    """`neck.lateral (conv2d_7)`; the name alone where it says the module, or there is none."""
    return name if not path or names_module(name, path) else f"{path} ({name})"


def names_module(name: str, path: str) -> bool:
    """Whether an operation's name has a module's path in it, as exporters write them."""
    return re.search(rf"(?<![\w.]){re.escape(path)}(?![\w.])", name) is not None


def _row(op: LoweredOp, layer: LayerEstimate | None, memories: list[str], with_cost: bool) -> list[str]:
    operators = " + ".join(node.op for node in op.block.nodes) or "relayout"
    row = [operators, op.block.engine or "none", _tiles(op)]
    if with_cost:
        cycles = f"{layer.cycles:,.0f}" if layer and layer.cycles is not None else "–"
        us = _digits(layer.us) if layer and layer.us is not None else "–"
        use = f"{layer.utilisation:.0%}" if layer and layer.utilisation is not None else "–"
        row += [cycles, us, use]
    traffic = layer.traffic if layer else op.traffic
    row += [f"{traffic[name].total:,}" if name in traffic and traffic[name].total else "–" for name in memories]
    return row + ([layer.bound_by if layer else "–"] if with_cost else [])


def _digits(value: float) -> str:
    """Three digits at least, whatever the size: 0.0123, 1.23, 12.3, 1,234."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _tiles(op: LoweredOp) -> str:
    return str(op.tiling.tiles) if op.tiling else "–"


def _totals(program: LoweredGraph, cost: LatencyEstimate | None, no_cost: str) -> list[str]:
    macs = sum(op.work.macs for op in program.ops if op.work)
    count = f"{len(program.ops)} operation{'' if len(program.ops) == 1 else 's'}"
    head = f"{program.target.id}: {count}, {macs:,} MACs"
    if cost is None:
        return [head, no_cost]
    cycles = f", {cost.cycles:,.0f} cycles" if cost.cycles is not None else ""
    missing = cost.not_modelled
    bound = "at least " if missing else ""
    lines = [f"{head}; {bound}{_digits(cost.us)} µs{cycles} ({cost.origin}: {cost.model})"]
    if missing:
        lines.append(f"  no figure for {len(missing)} of them: {missing[0].bound_by} ({_names(missing)})")
    if cost.energy_uj is not None:
        lines.append(f"  energy: {cost.energy_uj:,.1f} µJ")
    return lines


def _names(layers: tuple[LayerEstimate, ...]) -> str:
    shown = ", ".join(layer.name for layer in layers[:_SHOWN])
    return f"{shown}, …" if len(layers) > _SHOWN else shown


def _stretches(program: LoweredGraph) -> list[str]:
    if len(program.partitions) < 2:
        return []
    lines = [f"stretches: {len(program.partitions)}"]
    for ops in program.partitions:
        side = "accelerator" if ops[0].block.on_accelerator else ops[0].block.engine or "no toolchain takes them"
        why = next((str(reason.text) for reason in ops[0].reasons if reason.by == "partition"), "")
        count = f"{len(ops)} operation{'s' if len(ops) > 1 else ''}"
        lines.append(f"  {ops[0].block.partition}: {count} from {ops[0].name} on ({side}) {why}".rstrip())
    return lines


def _memory(program: LoweredGraph) -> list[str]:
    memory = program.memory
    lines = []
    for name, peak in memory.peak_bytes.items():
        described = program.target.memories.get(name)
        size = described.size_bytes if described else None
        of = f" of {size:,}" if size else ""
        constants = memory.constant_bytes.get(name)
        beside = f", and {constants:,} of weights" if constants else ""
        lines.append(f"{name}: peak {peak:,}{of} bytes{beside}")
    if memory.spilled:
        lines.append(f"{len(memory.spilled)} tensors do not stay on the chip:")
        lines += [f"  {why}" for why in list(memory.spilled.values())[:_SHOWN]]
        lines += ["  …"] if len(memory.spilled) > _SHOWN else []
    return lines


def _rests_on(cost: LatencyEstimate | None) -> list[str]:
    if cost is None:
        return []
    lines = [f"assumed: {each}" for each in cost.assumptions]
    lines += [f"not verified: {each.path} = {each.value} ({each.source})" for each in cost.unverified[:_SHOWN]]
    more = len(cost.unverified) - _SHOWN
    return (
        [*lines, f"not verified: {more} more statements (bitwright targets {cost.lowered.target.id})"]
        if more > 0
        else lines
    )
