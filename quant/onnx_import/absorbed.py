"""Activations that a quantizer has swallowed, put back.

Q/DQ files of other tools leave a ReLU out where the codes behind it begin at 0: quantizing clamps as well (ONNX
Runtime's `quantize_static` removes such nodes). As long as the result is coded nothing is lost; a layer that is taken
back to float needs its clamp again. The range of the codes is all that the file still says about it.
"""

from __future__ import annotations

from dataclasses import replace

from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import Graph, Node, TensorInfo, TensorRef
from bitwright.quant.onnx_import.qparams import ImportedQParams
from bitwright.quant.plan import QuantPlan

# Their results have both signs, so codes that begin at 0 are a clamp. The results of others may never be negative.
_SIGNED = frozenset({"add", "sub"})


def with_clamps(graph: Graph, plan: QuantPlan, qparams: dict[TensorRef, ImportedQParams]) -> tuple[Graph, QuantPlan]:
    """The network with a clamp behind each layer whose codes begin at 0, and the plan that fuses the two.

    Args:
        graph: of a quantized file.
        plan: of the same file.
        qparams: how its tensors are coded.
    """
    nodes: list[Node] = []
    tensors = dict(graph.tensors)
    chains = {chain[0]: chain for chain in plan.fused}
    quantized = set(plan.quantized)
    for node in graph.nodes:
        bound = _upper_bound(graph, node, qparams) if node.name in plan.quantized else None
        if bound is None or node.name in chains:
            nodes.append(node)
            continue
        result = node.outputs[0]
        raw = replace(result, module_path=f"{result.module_path}/unclamped")
        tensors[raw] = TensorInfo(
            ref=raw, shape=tensors[result].shape, dtype=tensors[result].dtype, kind=tensors[result].kind
        )
        clamp = Node(
            name=f"{node.name}_clamp",
            op="hardtanh",
            inputs=(raw,),
            outputs=(result,),
            attributes={"min_val": 0.0, "max_val": bound},
            module_path=node.module_path,
            module_type=node.module_type,
            source=node.source,
        )
        nodes += [replace(node, outputs=(raw,)), clamp]
        chains[node.name] = (node.name, clamp.name)
        quantized.add(clamp.name)
    clamped = replace(graph, nodes=tuple(nodes), tensors=tensors)
    return clamped, replace(plan, fused=tuple(chains.values()), quantized=frozenset(quantized))


def _upper_bound(graph: Graph, node: Node, qparams: dict[TensorRef, ImportedQParams]) -> float | None:
    """The largest value of the codes of a result that can be negative, when they begin at 0."""
    known = qparams.get(node.outputs[0]) if len(node.outputs) == 1 else None
    if known is None or known.scale is None or known.zero_point is None or known.scale.ndim:
        return None
    if not isinstance(known.spec.format, IntFormat) or not (graph.is_layer(node) or node.op in _SIGNED):
        return None
    low, high = known.spec.code_range
    if float(known.zero_point) != low:
        return None
    return float((high - low) * known.scale)
