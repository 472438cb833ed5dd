"""What files write as several operators and runtimes run as one."""

from __future__ import annotations

from bitwright.hw_constraints.kernels.coded_graph import Call, CodedGraph
from bitwright.hw_constraints.kernels.rules import FusionRules

SILU = "silu"
_BETWEEN_SCORES = frozenset({"Mul", "Div", "Add", "Where"})  # scale and mask


def silu_of(graph: CodedGraph, call: Call, rules: FusionRules) -> Call | None:
    """The product `x * sigmoid(x)` that a sigmoid belongs to, where the runtime makes one kernel of both."""
    if call.op != "Sigmoid" or call.outputs[0] in graph.coded:
        return None
    source, product = call.live[0], graph.sole_reader(call.outputs[0])
    if product is None or product.op != "Mul" or {one.value for one in product.live} != {source.value, call.outputs[0]}:
        return None
    return product if (f"{SILU}/int8" if source.coded else SILU) in rules.composites else None


def attention_of(graph: CodedGraph, call: Call, rules: FusionRules) -> tuple[Call, ...] | None:
    """The operators of `softmax(scale * Q K^T + mask) V` that begins with a product of two activations."""
    if call.op != "MatMul" or len(call.live) < 2 or "attention" not in rules.composites:
        return None
    calls, softmax_seen = [call], False
    while not (softmax_seen and calls[-1].op == "MatMul"):
        value = calls[-1].outputs[0]
        follower = graph.sole_reader(value)
        if follower is None or value in graph.coded:
            return None
        softmax_seen = softmax_seen or follower.op == "Softmax"
        allowed = {"MatMul", "Softmax"} if softmax_seen else _BETWEEN_SCORES
        if follower.op not in allowed or (follower.op in _BETWEEN_SCORES and len(follower.live) > 1):
            return None
        calls.append(follower)
    return tuple(calls)
