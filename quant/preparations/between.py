"""What lies between the layer that makes some channels and the layers that read them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bitwright.quant.graph import CONVOLUTIONS, Graph, Node, TensorRef

_CLAMPS = frozenset({"relu6", "hardtanh"})
_CEILING = {"relu6": 6.0, "hardtanh": 1.0}  # without arguments, as ATen has it


@dataclass(frozen=True, kw_only=True)
class Activation:
    """A layer whose result goes through one activation and then into layers alone.

    Attributes:
        maker: a convolution or linear layer with a weight and a bias of its own.
        node: a ReLU, or a clamp that begins at 0.
        ceiling: where it ends; infinity for a ReLU.
        readers: layers with a weight and a bias of their own, all that read it.
    """

    maker: Node
    node: Node
    ceiling: float
    readers: tuple[Node, ...]


def find_activations(graph: Graph) -> Iterator[Activation]:
    """Every such place, in the order of the network."""
    for maker in graph.nodes:
        node = graph.sole_consumer(maker.outputs[0]) if has_own_bias(graph, maker) else None
        ceiling = None if node is None else ceiling_of(node)
        if node is None or ceiling is None or node.outputs[0] in leaving(graph):
            continue
        readers = graph.consumers[node.outputs[0]]
        if readers and all(has_own_bias(graph, each) and each.tensors[0] == node.outputs[0] for each in readers):
            yield Activation(maker=maker, node=node, ceiling=ceiling, readers=readers)


def leaving(graph: Graph) -> set[TensorRef]:
    """What is read outside: results and outgoing state."""
    return {*graph.outputs, *(after for _, after in graph.state)}


def ceiling_of(node: Node) -> float | None:
    """Where an activation that begins at 0 and then is the identity ends; None for every other operator."""
    if node.op == "relu":
        return math.inf
    if node.op not in _CLAMPS:
        return None
    low = node.attributes.get("min_val", 0.0 if node.op == "relu6" else -1.0)
    return float(node.attributes.get("max_val", _CEILING[node.op])) if low == 0.0 else None


def is_own(graph: Graph, ref: TensorRef | None) -> bool:
    """Whether a parameter belongs to one layer alone."""
    return ref is not None and graph.is_constant(ref) and len(graph.consumers[ref]) == 1


def has_own_weight(graph: Graph, node: Node) -> bool:
    """Whether a node is a convolution or linear layer with a weight of its own."""
    known = node.op in CONVOLUTIONS or node.op == "linear"
    return known and len(node.inputs) > 1 and is_own(graph, node.inputs[1])


def has_own_bias(graph: Graph, node: Node) -> bool:
    """Whether it has a bias of its own as well."""
    return has_own_weight(graph, node) and len(node.inputs) > 2 and is_own(graph, node.inputs[2])


def is_depthwise(graph: Graph, node: Node) -> bool:
    """Whether a layer has one filter for each channel."""
    groups, shape = int(node.attributes.get("groups", 1)), graph.tensors[node.tensors[1]].shape
    return groups > 1 and shape[0] == groups and shape[1] == 1
