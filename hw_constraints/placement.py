"""Where an accelerator runs each operator call: in low precision, in float, on its host, or not at all.

An accelerator without floating point runs nothing on real numbers, however well it knows the operator. Of Ethos-U Vela
says "Tensors must be of type: int16, int32, int8, uint8" of all operators, else "that operator will be scheduled on
the CPU instead" (ethos-u-vela 5.2.0, `--supported-ops-report`).
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from bitwright.hw_constraints.target_types import Otherwise, Target
from bitwright.quant.graph import Graph, Node
from bitwright.quant.plan import QuantPlan


class Place(StrEnum):
    """What becomes of one call."""

    LOW = "low"  # computed in the target's low-precision formats
    MOVED = "moved"  # codes change place, nothing is computed
    FLOAT = "float"  # the accelerator computes it in floating point
    HOST = "host"  # a processor beside the accelerator runs it
    REFUSED = "refused"  # the toolchain has no such operator


_OTHERWISE = {Otherwise.FLOAT: Place.FLOAT, Otherwise.HOST: Place.HOST, Otherwise.REFUSED: Place.REFUSED}


def fused_names(graph: Graph, target: Target) -> frozenset[str]:
    """The calls that vanish into the low-precision operator before them."""
    chains = graph.chains(target.operators.fused_patterns)
    return frozenset(node.name for chain in chains if chain[0].op in target.operators.quantized for node in chain[1:])


def places(
    graph: Graph, target: Target, plan: QuantPlan | None = None, *, fused: frozenset[str] | None = None
) -> dict[str, Place]:
    """The place of every call, by its node's name; where a plan exists, it decides what stays in float.

    `fused` are the names that `fused_names` gives, for a caller that has them already.
    """
    behind = fused_names(graph, target) if fused is None else fused
    return {node.name: _place(graph, node, target, behind, plan) for node in graph.nodes}


def _place(graph: Graph, node: Node, target: Target, fused: frozenset[str], plan: QuantPlan | None) -> Place:
    operators = target.operators
    if node.op in operators.refused:
        return Place.REFUSED
    if plan is not None and (node.op not in operators.decomposed or is_excepted(node, plan)):
        if plan.kept_float.get(node.name):
            return _OTHERWISE[operators.others]
        if node.name in plan.quantized:
            return Place.MOVED if node.op in operators.shared_qparams else Place.LOW
        if not target.numerics.float_formats and _is_on_real_numbers(graph, node, plan, operators.shared_qparams):
            return _OTHERWISE[operators.others]
    if node.name in fused or node.op in operators.quantized or node.op in operators.decomposed:
        return Place.LOW
    return Place.MOVED if node.op in operators.shared_qparams else _OTHERWISE[operators.others]


def is_excepted(node: Node, plan: QuantPlan) -> bool:
    """Whether an exception to the scheme keeps a call in float, which is said of parts and of the whole alike."""
    override = plan.scheme.override_for(module_path=node.module_path, operator=node.op)
    return override is not None and override.keep_float


def _is_on_real_numbers(graph: Graph, node: Node, plan: QuantPlan, moves: Collection[str]) -> bool:
    """Whether a call that the plan has in no codes reads real numbers that are not known before the network runs.

    A move of the network's own inputs does not: rounding commutes with it, so codes move where inputs come in codes.
    """
    read = [ref for ref in node.tensors if graph.tensors[ref].is_floating and not graph.is_constant(ref)]
    real = [ref for ref in read if ref not in plan.activations]
    if node.op not in moves:
        return bool(real)
    makers = [graph.producers.get(ref) for ref in real]
    return any(
        each is not None and (each.op not in moves or _is_on_real_numbers(graph, each, plan, moves)) for each in makers
    )
