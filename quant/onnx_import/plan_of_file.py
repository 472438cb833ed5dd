"""The plan that a quantized file was made by, read off its codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from bitwright.quant.formats import FORMATS, IntFormat
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.onnx_import.qparams import ImportedQParams
from bitwright.quant.plan import BiasPlan, QuantPlan
from bitwright.quant.scheme import BiasKind, Granularity, QParamsSpec, QuantScheme

_DEFAULT = QParamsSpec(format=FORMATS["uint8"], symmetric=False)
# What follows an operator inside one kernel, so that there are no codes in between.
_FOLLOWERS = frozenset(
    {"relu", "hardtanh", "clamp", "leaky_relu", "silu", "hardswish", "gelu", "sigmoid", "batch_norm"}
)


def plan_of_file(
    graph: Graph, qparams: Mapping[TensorRef, ImportedQParams], name: str, scheme: QuantScheme | None = None
) -> QuantPlan:
    """Says which tensors and nodes a file has in low precision, in the vocabulary of `plan.plan`.

    A node runs in low precision when every float tensor that it reads is coded, and it, or the chain that is fused
    behind it, writes codes or a result of the network.

    Args:
        graph: the float network.
        qparams: how tensors are coded; int32 ones are biases.
        name: of the file, for messages.
        scheme: of a target; nodes that it does not run in low precision then stay in float. None believes the file.
    """
    specs = {ref: known.spec for ref, known in qparams.items() if known.spec.format.name != "int32"}
    biases = _biases(graph, qparams)
    chains = [chain for node in graph.nodes if (chain := _chain(graph, node, specs, biases))]
    coded = list(chains)
    inner = {node.name for chain in chains for node in chain[1:]}
    chains = [chain for chain in chains if chain[0].name not in inner and _runs(chain[0], scheme)]
    floating = {node.name for node in graph.nodes} - {node.name for chain in coded for node in chain}
    quantized = frozenset(node.name for chain in chains for node in chain)
    activations = {ref: spec for ref, spec in specs.items() if not graph.is_constant(ref)}
    weights = {ref: spec for ref, spec in specs.items() if graph.is_constant(ref)}
    origin = f"scheme {scheme.name!r}" if scheme else name
    floats = {
        node.name: f"{name} has it in float" if node.name in floating else f"{origin} runs no {node.op} on codes"
        for node in graph.nodes
        if node.name not in quantized and any(graph.tensors[ref].is_floating for ref in node.outputs)
    }
    return QuantPlan(
        scheme=scheme or _scheme(name, chains, activations, weights, has_biases=bool(biases)),
        activations=activations,
        weights=weights,
        groups=_groups(graph, qparams, quantized),
        biases={name: bias for name, bias in biases.items() if name in quantized},
        fused=tuple(tuple(node.name for node in chain) for chain in chains if len(chain) > 1),
        quantized=quantized,
        kept_float=floats,
    )


def _runs(node: Node, scheme: QuantScheme | None) -> bool:
    return scheme is None or node.op in scheme.quantized_operators | scheme.shared_qparams_operators


def _biases(graph: Graph, qparams: Mapping[TensorRef, ImportedQParams]) -> dict[str, BiasPlan]:
    found = {}
    for node in graph.nodes:
        if not graph.is_layer(node):
            continue
        data, weight, bias = (node.inputs[i] if i < len(node.inputs) else None for i in graph.layer_positions(node))
        if data and weight and bias and bias in qparams and qparams[bias].spec.format.name == "int32":
            found[node.name] = BiasPlan(bias=bias, input=data, weight=weight)
    return found


def _chain(
    graph: Graph, node: Node, specs: Mapping[TensorRef, QParamsSpec], biases: Mapping[str, BiasPlan]
) -> tuple[Node, ...]:
    """The nodes that run as one from this one on; empty when it does not run in low precision."""
    bias = biases.get(node.name)
    reads = [ref for ref in node.tensors if graph.tensors[ref].is_floating and not (bias and ref == bias.bias)]
    _, _, position = graph.layer_positions(node)
    if graph.is_layer(node) and position < len(node.inputs):
        reads = [ref for ref in reads if ref != node.inputs[position]]  # a bias may stay in float
    if not reads or not all(ref in specs for ref in reads) or not node.outputs:
        return ()
    chain = [node]
    while not any(ref in specs for ref in chain[-1].outputs):
        follower = graph.sole_consumer(chain[-1].outputs[0])
        if follower is None or follower.op not in _FOLLOWERS:
            break
        chain.append(follower)
    last = chain[-1].outputs
    writes = any(ref in specs for ref in last)
    leaves = any(ref in graph.outputs for ref in last) or not any(graph.tensors[ref].is_floating for ref in last)
    return tuple(chain) if writes else (node,) if leaves or graph.is_layer(node) else ()


def _groups(
    graph: Graph, qparams: Mapping[TensorRef, ImportedQParams], quantized: frozenset[str]
) -> tuple[frozenset[TensorRef], ...]:
    """Tensors that an operator without weights joins and that have the same scale: its codes only move."""
    groups: list[set[TensorRef]] = []
    for node in graph.nodes:
        members = {ref for ref in (*node.tensors, *node.outputs) if graph.tensors[ref].is_floating}
        if node.name not in quantized or graph.is_layer(node) or len(members) < 2 or not members <= qparams.keys():
            continue
        first = qparams[min(members)]
        if not all(qparams[ref].same_numbers(first) for ref in members):
            continue
        touching = [group for group in groups if group & members]
        groups = [group for group in groups if not group & members]
        groups.append(members.union(*touching))
    return tuple(map(frozenset, groups))


def _scheme(
    name: str,
    chains: list[tuple[Node, ...]],
    activations: Mapping[TensorRef, QParamsSpec],
    weights: Mapping[TensorRef, QParamsSpec],
    *,
    has_biases: bool,
) -> QuantScheme:
    """The scheme that such a plan would follow from: its most frequent formats and the operators that it has."""
    # A scheme has one scale for an activation unless they follow the data; a file may have more.
    whole = {
        ref: spec for ref, spec in activations.items() if spec.granularity is Granularity.PER_TENSOR or spec.dynamic
    }
    fixed = {ref: spec for ref, spec in activations.items() if not spec.dynamic}
    return QuantScheme(
        name=name,
        activations=_most_frequent(whole) or _DEFAULT,
        weights=_most_frequent(weights) or _most_frequent(fixed) or _DEFAULT,
        bias=BiasKind.INT32 if has_biases else BiasKind.FLOAT32,
        quantized_operators=frozenset(chain[0].op for chain in chains),
        fused_patterns=tuple(sorted({tuple(node.op for node in chain) for chain in chains if len(chain) > 1})),
    )


def _most_frequent(specs: Mapping[TensorRef, QParamsSpec]) -> QParamsSpec | None:
    integers = [spec for spec in specs.values() if isinstance(spec.format, IntFormat)] or list(specs.values())
    # Specs hold mappings and are not hashable; their spelling is.
    counts = Counter(map(repr, integers))
    return next((spec for spec in integers if repr(spec) == counts.most_common(1)[0][0]), None)
