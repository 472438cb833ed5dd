"""A predicted latency as a function of a network's shapes, for whoever makes networks smaller and knows no hardware."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bitwright.hw_constraints.predict.planned_model import planned_model
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.plan import plan
from bitwright.quant.scheme import QuantScheme

_LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})


def predicted_latency(predictor: LatencyPredictor, scheme: QuantScheme) -> Callable[[Graph], float]:
    """What a network would take in the number formats of a scheme, in ms.

    Args:
        predictor: of the runtime and device.
        scheme: what would be quantized, and how.
    """

    def latency_ms(graph: Graph) -> float:
        folded = with_folded_shapes(graph)
        return predictor.network(predictor.split(planned_model(folded, plan(folded, scheme)))).us / 1e3

    return latency_ms


def with_folded_shapes(graph: Graph) -> Graph:
    """The graph without batch norms behind layers: such a layer reads the batch norm's bias as its own.

    Shapes and formats are those of the folded network; values are not.
    """
    followed: dict[str, Node] = {}
    for layer, norm in graph.chains([(layer, "batch_norm") for layer in _LAYERS]):
        followed[layer.name] = norm
    gone = {norm.name for norm in followed.values()}
    nodes = [_folded(node, followed.get(node.name)) for node in graph.nodes if node.name not in gone]
    return replace(graph, nodes=tuple(nodes))


def _folded(layer: Node, norm: Node | None) -> Node:
    if norm is None:
        return layer
    inputs: tuple[TensorRef | None, ...] = (*layer.inputs[:2], norm.inputs[2])
    return replace(layer, inputs=inputs, outputs=norm.outputs)
