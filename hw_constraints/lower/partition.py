"""Third pass: which engine runs each block, and the stretches of the program that run on one side without a break.

A stretch is convex: no path leaves it and comes back, since each change of side starts a later stretch on every path
behind it. With `level(b) = max over predecessors p of level(p) + (side(p) != side(b))` the blocks of one level and side
are such a stretch.
"""

from __future__ import annotations

from dataclasses import replace

from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.lower.fuse import VIEWS, known_before
from bitwright.hw_constraints.lower.hardware import Hardware, hardware_of
from bitwright.hw_constraints.lower.program import Block, Pass, Program
from bitwright.hw_constraints.lower.work import WorkKind
from bitwright.hw_constraints.lower.work_of import kind_of
from bitwright.hw_constraints.node_properties import properties
from bitwright.hw_constraints.placement import Place, places
from bitwright.hw_constraints.target_types import Otherwise, Target
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.plan import QuantPlan

_OTHERWISE = {Otherwise.FLOAT: Place.FLOAT, Otherwise.HOST: Place.HOST, Otherwise.REFUSED: Place.REFUSED}


def decide(graph: Graph, target: Target, plan: QuantPlan) -> dict[str, tuple[Place, str]]:
    """Where each node runs, and why where that is not the accelerator's low precision; "" else."""
    hardware = hardware_of(target)
    found = places(graph, target, plan)
    decided = {}
    for node in graph.nodes:
        place, why = found[node.name], ""
        broken = _broken_constraint(graph, node, target) if place in (Place.LOW, Place.MOVED) else None
        if broken:
            place, why = _OTHERWISE[target.operators.others], broken
        elif place not in (Place.LOW, Place.MOVED):
            why = _reason(node, target, plan, place)
        if place not in (Place.HOST, Place.REFUSED) and node.op not in VIEWS:
            kind = kind_of(node)
            # Moves are transfers, which need no engine.
            if kind is not WorkKind.MOVE and hardware.engine_for(kind, node.op) is None:
                place, why = Place.HOST, f"no engine of {target.id} does work of the kind {kind}"
        decided[node.name] = place, why
    return _behind_the_first_break(graph, target, decided) if target.operators.single_partition else decided


def _behind_the_first_break(
    graph: Graph, target: Target, decided: dict[str, tuple[Place, str]]
) -> dict[str, tuple[Place, str]]:
    """For toolchains with one partition: from the first operator on the host on, everything is there."""
    known, broken = known_before(graph), ""
    for node in graph.nodes:
        place, _ = decided[node.name]
        if all(ref in known for ref in node.outputs):
            continue
        if broken and place not in (Place.HOST, Place.REFUSED):
            decided[node.name] = Place.HOST, f"{target.id} has one partition, which ends at {broken}"
        elif place is Place.HOST and not broken:
            broken = f"{node.op} {node.name!r}"
    return decided


def _broken_constraint(graph: Graph, node: Node, target: Target) -> str | None:
    constraints = [each for each in target.constraints_on(node.op) if each.severity is Severity.ERROR]
    known = properties(graph, node) if constraints else {}
    for constraint in constraints:
        if constraint.require.holds(known) is False:
            checked = "" if constraint.verified else f" (not verified; {constraint.source})"
            return f"{constraint.require.found(known)} breaks {constraint.require}: {constraint.because}{checked}"
    return None


def _reason(node: Node, target: Target, plan: QuantPlan, place: Place) -> str:
    if place is Place.REFUSED:
        return f"the toolchain of {target.id} has no {node.op}"
    operators = target.operators
    if node.op not in operators.quantized | operators.shared_qparams | operators.decomposed.keys():
        where = "on the host" if place is Place.HOST else "in floating point"
        return f"{target.id} has no {node.op}; what it lacks runs {where}"
    return plan.kept_float.get(node.name) or f"{node.op} has no operands in the formats of {target.id}"


def partition(program: Program) -> Program:
    """Gives every block its engine and its stretch, and brings stretches together."""
    hardware = hardware_of(program.target)
    blocks = [_with_engine(block, hardware) for block in program.blocks]
    levels = _levels(blocks)
    ordered = sorted(zip(levels, range(len(blocks)), strict=True))
    numbers: dict[tuple[int, bool], int] = {}
    placed = []
    for level, position in ordered:
        block = blocks[position]
        number = numbers.setdefault((level, block.on_accelerator), len(numbers))
        placed.append(replace(block, partition=number))
    return replace(program, blocks=tuple(_explained(placed)))


def _with_engine(block: Block, hardware: Hardware) -> Block:
    if not block.on_accelerator:
        return replace(block, engine=hardware.host if block.place is Place.HOST else "")
    kind = WorkKind.MOVE if block.op in VIEWS else kind_of(block.nodes[0])
    engine = hardware.engine_for(kind, block.op)
    return replace(block, engine=engine.name if engine else hardware.engines[0].name)


def _levels(blocks: list[Block]) -> list[int]:
    """Views take the side of what they look at, so that they never break a stretch."""
    level_of: dict[TensorRef, tuple[int, bool]] = {}
    levels = []
    for position, block in enumerate(blocks):
        before = [level_of[ref] for ref in block.reads if ref in level_of]
        side = block.on_accelerator
        if block.op in VIEWS and before:
            level, side = max(before)
            blocks[position] = replace(block, place=Place.MOVED if side else Place.HOST)
        else:
            level = max((level + (other != side) for level, other in before), default=0 if side else 1)
        levels.append(level)
        level_of.update(dict.fromkeys(block.writes, (level, side)))
    return levels


def _explained(blocks: list[Block]) -> list[Block]:
    """Says at the first block of each later stretch on the accelerator what the break before it costs."""
    explained, last = [], blocks[0].partition if blocks else 0
    culprit: dict[int, str] = {}
    for block in blocks:
        if block.partition != last:
            text = f"stretch {block.partition} starts here" + (f", after {culprit[last]}" if last in culprit else "")
            block, last = block.because(Pass.PARTITION, text), block.partition
        if not block.on_accelerator and block.partition not in culprit:
            culprit[block.partition] = f"{block.op} {block.name!r} on the {block.engine or 'host'}"
        explained.append(block)
    return explained
