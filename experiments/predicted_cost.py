"""A predicted latency as a function of a network's shapes, for whoever makes networks smaller and knows no hardware."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bitwright.hw_constraints.target import Capability, Target
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.plan import plan
from bitwright.quant.scheme import QuantScheme

if TYPE_CHECKING:
    from bitwright.hw_constraints.predict.predictor import LatencyPredictor

_LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})
_TABLE_LEVEL = 0.95  # as all intervals of a record


@dataclass(frozen=True, kw_only=True)
class ShapeCost:
    """What a network costs by its shapes (batch norms not folded), with the unit and who says so."""

    of: Callable[[Graph], float]
    unit: str
    source: str


def shape_cost(
    kind: Literal["latency", "macs"], tables: tuple[str, ...], target: Target, scheme: QuantScheme
) -> ShapeCost:
    """What a target offers to tell a smaller network from a larger one.

    Args:
        kind: what is reckoned.
        tables: of kernels' latencies, as `bitwright measure kernels` makes them; the first one tells latency.
        target: its cost model does where there is no table.
        scheme: what would be quantized, and how.

    Raises:
        InputError: there is neither a table nor a cost model; or the table cannot be read.
    """
    if kind == "macs":
        return ShapeCost(of=lambda graph: float(sum(map(graph.macs, graph.nodes))), unit="MAC", source="shapes")
    if tables:
        from bitwright.hw_constraints.predict.from_table import load_predictor

        predictor = load_predictor(Path(tables[0]), level=_TABLE_LEVEL)
        source = f"latency table of {predictor.where}"
        return ShapeCost(of=predicted_latency(predictor, scheme), unit="ms", source=source)
    if missing := missing_latency(target):
        raise InputError(missing)
    return ShapeCost(of=modelled_latency(target, scheme), unit="ms", source=f"cost model of {target.id}")


def missing_latency(target: Target) -> str:
    """Why a target cannot say a latency without a table; "" when it can."""
    if Capability.COST in target.capabilities:
        return ""
    return (
        f"target {target.id!r} has no cost model; predict.tables = [FILE] brings a table of "
        "`bitwright measure kernels`, or give cost: macs"
    )


def modelled_latency(target: Target, scheme: QuantScheme) -> Callable[[Graph], float]:
    """What a network would take by its target's cost model, in ms, in the number formats of a scheme."""
    from bitwright.hw_constraints.cost.estimate import estimate
    from bitwright.hw_constraints.lower.lowering import lower

    def latency_ms(graph: Graph) -> float:
        folded = with_folded_shapes(graph)
        return estimate(lower(folded, target, plan=plan(folded, scheme))).us / 1e3

    return latency_ms


def predicted_latency(predictor: LatencyPredictor, scheme: QuantScheme) -> Callable[[Graph], float]:
    """What a network would take in the number formats of a scheme, in ms.

    Args:
        predictor: of the runtime and device.
        scheme: what would be quantized, and how.
    """
    from bitwright.hw_constraints.predict.planned_model import planned_model

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
