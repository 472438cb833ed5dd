"""A quantized network with some of its nodes back in float: the same qparams, fewer of them in use.

What a search over the places of Q/DQ writes and runs: nothing is calibrated again, since the ranges of a tensor do not
hang on who reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.plan import QuantPlan
from bitwright.quant.quantized_model import QuantizedModel


def restrict_plan(
    graph: Graph, plan: QuantPlan, *, floats: Mapping[str, str], real: Collection[TensorRef] = ()
) -> QuantPlan:
    """The plan with some nodes in float.

    A tensor keeps its codes where a node in low precision still reads it, or where one writes it and it is not among
    `real`. So between a float producer and float readers there is no Q/DQ.

    Args:
        graph: the network.
        plan: what is in low precision now.
        floats: the reason for each node to be in float; of a fused chain, all nodes.
        real: results that a node in low precision is to write as real values, where only nodes in float read them.

    Raises:
        ValueError: a fused chain would be torn apart.
    """
    quantized = plan.quantized - floats.keys()
    for chain in plan.fused:
        if 0 < len(quantized.intersection(chain)) < len(chain):
            raise ValueError(f"{', '.join(chain)} run as one: keep all of them in float, or none")
    kept = {ref for ref in (*plan.activations, *plan.weights) if _is_coded(graph, plan, ref, quantized, real)}
    return replace(
        plan,
        activations={ref: spec for ref, spec in plan.activations.items() if ref in kept},
        weights={ref: spec for ref, spec in plan.weights.items() if ref in kept},
        groups=tuple(group & kept for group in plan.groups if len(group & kept) > 1),
        biases={name: bias for name, bias in plan.biases.items() if name in quantized},
        fused=tuple(chain for chain in plan.fused if chain[0] in quantized),
        quantized=quantized,
        kept_float={**plan.kept_float, **{name: why for name, why in floats.items() if name in plan.quantized}},
    )


def restrict_model(
    quantized: QuantizedModel,
    reference: CapturedModel,
    *,
    floats: Mapping[str, str],
    real: Collection[TensorRef] = (),
) -> QuantizedModel:
    """The quantized network with some nodes in float.

    Args:
        quantized: the network with everything in low precision that its scheme allows.
        reference: the same network before its biases were corrected: a layer in float has no rounding to make up for.
        floats: see `restrict_plan`.
        real: see `restrict_plan`.
    """
    graph = quantized.captured.graph
    plan = restrict_plan(graph, quantized.plan, floats=floats, real=real)
    values = dict(quantized.captured.values)
    for ref, name in quantized.captured.value_refs.items():
        if not any(reader.name in plan.quantized for reader in graph.consumers[ref]):
            values[name] = reference.values[name]
    kept = {*plan.activations, *plan.weights}
    return QuantizedModel(
        captured=replace(quantized.captured, values=values),
        plan=plan,
        qparams={ref: qparams for ref, qparams in quantized.qparams.items() if ref in kept},
    )


def _is_coded(
    graph: Graph, plan: QuantPlan, ref: TensorRef, quantized: Collection[str], real: Collection[TensorRef]
) -> bool:
    if any(reader.name in quantized for reader in graph.consumers[ref]):
        return True
    producer = graph.producers.get(ref)
    return producer is not None and producer.name in quantized and ref not in real
