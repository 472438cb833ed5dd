"""What is known of a candidate before it is trained: work and memory, from shapes and planned formats."""

from __future__ import annotations

import math

from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.plan import QuantPlan
from bitwright.quant.stored_size import element_bits, stored_bits

_BIAS_BITS = 32


def macs(graph: Graph) -> int:
    """Multiply-accumulates of one inference."""
    return sum(map(graph.macs, graph.nodes))


def weight_bytes(graph: Graph, plan: QuantPlan) -> int:
    """Parameters and constants in their planned formats, with the scales of blocks; other scales are not counted."""
    biases = {each.bias for each in plan.biases.values()}
    read = {ref for node in graph.nodes for ref in node.tensors if graph.is_constant(ref)}
    bits = sum(
        graph.tensors[ref].elements * _BIAS_BITS if ref in biases else _stored_bits(ref, graph, plan) for ref in read
    )
    return math.ceil(bits / 8)


def activation_bytes(graph: Graph, plan: QuantPlan) -> int:
    """The most that live activations take at any time, when operators run one by one in the graph's order.

    Tensors inside a fused chain are never stored. State counts throughout.
    """
    inner = {ref for chain in plan.fused for name in chain[:-1] for ref in graph.by_name[name].outputs}
    last = {ref: position for position, node in enumerate(graph.nodes) for ref in node.tensors}
    kept = {*graph.outputs, *(ref for pair in graph.state for ref in pair)}
    live = {*graph.inputs, *(incoming for incoming, _ in graph.state)}
    most = _bytes(live, graph, plan)
    for position, node in enumerate(graph.nodes):
        live |= set(node.outputs) - inner
        most = max(most, _bytes(live, graph, plan))
        live = {ref for ref in live if ref in kept or last.get(ref, -1) > position}
    return most


def _bytes(live: set[TensorRef], graph: Graph, plan: QuantPlan) -> int:
    return sum(math.ceil(_stored_bits(ref, graph, plan) / 8) for ref in live)


def _stored_bits(ref: TensorRef, graph: Graph, plan: QuantPlan) -> int:
    spec = plan.weights.get(ref) or plan.activations.get(ref)
    return stored_bits(graph, ref, element_bits(graph.tensors[ref].dtype, spec), spec)
