"""Which candidates are the same network: a hash of what would run, whatever its parameters are called."""

from __future__ import annotations

from typing import Any

from bitwright.nas.space import hash_of
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.plan import QuantPlan
from bitwright.quant.scheme import QParamsSpec


def network_hash(graph: Graph, plan: QuantPlan) -> str:
    """A hash over operators, attributes, shapes, formats and their connections; weights do not count.

    Tensors are numbered in the order of the graph, so the names of modules do not count either.
    """
    number: dict[TensorRef, int] = {}
    rows: list[Any] = [["inputs", [_tensor(ref, graph, plan, number) for ref in graph.inputs]]]
    for node in graph.nodes:
        operands = [None if ref is None else _tensor(ref, graph, plan, number) for ref in node.inputs]
        results = [_tensor(ref, graph, plan, number) for ref in node.outputs]
        attributes = {name: repr(value) for name, value in node.attributes.items()}
        rows.append([node.op, operands, results, attributes, node.name in plan.quantized])
    rows.append(["outputs", [number[ref] for ref in graph.outputs]])
    rows.append(["state", [[number.get(a), number.get(b)] for a, b in graph.state]])
    return hash_of(rows)


def _tensor(ref: TensorRef, graph: Graph, plan: QuantPlan, number: dict[TensorRef, int]) -> list[Any]:
    info = graph.tensors[ref]
    spec = plan.weights.get(ref) or plan.activations.get(ref)
    place = number.setdefault(ref, len(number))
    return [place, info.kind.value, info.dtype, list(info.shape), None if spec is None else _spell(spec)]


def _spell(spec: QParamsSpec) -> str:
    words = (spec.format.name, spec.symmetric, spec.granularity, spec.narrow_range, spec.scale_kind, spec.observer)
    finer = (spec.block_size, spec.dynamic)
    return f"{words} {finer} {dict(spec.observer_arguments)}"
