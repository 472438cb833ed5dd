"""How much time stands behind a finding: the target's cost model, asked for every call of a network."""

from __future__ import annotations

from bitwright.hw_constraints.cost.estimate import estimate
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target_types import Capability, Target
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph
from bitwright.quant.plan import QuantPlan


def costs_us(graph: Graph, target: Target, plan: QuantPlan) -> dict[str, float]:
    """Modelled microseconds by the node's name; of calls that run as one, each has the time of all of them.

    Empty where the target serves no cost, for a graph without the values of its weights, which decide how they are
    packed, and for a network that cannot be lowered: an open shape or a tensor beyond every memory is a finding of its
    own.
    """
    if Capability.COST not in target.capabilities or not graph.nodes or graph.load is None:
        return {}
    try:
        estimated = estimate(lower(graph, target, plan=plan))
    except InputError:
        return {}
    costs: dict[str, float] = {}
    for layer in estimated.layers:
        if layer.us is not None:
            nodes = estimated.lowered.by_name[layer.name].block.nodes
            for name in {_before_decomposition(node.name, graph) for node in nodes}:
                costs[name] = costs.get(name, 0.0) + layer.us
    return costs


def _before_decomposition(name: str, graph: Graph) -> str:
    """A part of an operator that was taken apart carries its name, and behind a dot a number."""
    return name if name in graph.by_name else name.rpartition(".")[0]
