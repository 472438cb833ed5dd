"""What files write as several operators and runtimes run as one."""

from __future__ import annotations

from bitwright.hw_constraints.kernels.coded_graph import Call, CodedGraph
from bitwright.hw_constraints.kernels.codes import coding
from bitwright.hw_constraints.kernels.draft import Draft
from bitwright.hw_constraints.kernels.kernel import Family
from bitwright.hw_constraints.kernels.rules import FusionRules

SILU = "silu"
_BETWEEN_SCORES = frozenset({"Mul", "Div", "Add", "Where"})  # scale and mask


def composite(graph: CodedGraph, call: Call, rules: FusionRules) -> Draft | None:
    """`x * sigmoid(x)`, or `softmax(Q K^T) V`, as one kernel, where the runtime makes one of it."""
    attention = attention_of(graph, call, rules)
    if attention is not None:
        return _attention(graph, attention, rules)
    product = silu_of(graph, call, rules)
    if product is None:
        return None
    source, result = call.live[0], product.outputs[0]
    shape = graph.shape(source.value)
    in_codes = source.coded and result in graph.coded
    draft = Draft(
        family=Family.ACTIVATION,
        op=SILU,
        format="int8" if in_codes else "float32",
        reads=[(source.value, shape, source.coded)],
        writes=[(result, shape)],
        members=[call, product],
        writes_codes=in_codes,
    )
    if in_codes:
        draft.attributes = tuple(coding(graph, draft, rules))
    return draft


def _attention(graph: CodedGraph, calls: tuple[Call, ...], rules: FusionRules) -> Draft:
    scores, last = calls[0], calls[-1]
    values = next(one for one in last.live if graph.maker.get(one.value) not in calls)
    draft = Draft(
        family=Family.ATTENTION,
        op="Attention",
        format="float32",
        reads=[(one.value, graph.shape(one.value), one.coded) for one in (*scores.live, values)],
        writes=[(last.outputs[0], graph.shape(last.outputs[0]))],
        members=list(calls),
    )
    makers = [graph.maker.get(value) for value, _, _ in draft.reads]
    moved = [maker for maker in makers if maker is not None and maker.op == "Transpose"]
    if len(moved) == len(makers) and all(graph.sole_reader(maker.outputs[0]) for maker in moved):
        draft.reads = [
            (maker.live[0].value, shape, coded) for maker, (_, shape, coded) in zip(moved, draft.reads, strict=True)
        ]
        draft.members = [*moved, *draft.members]
        draft.attributes = (("transposed", 1),)
    follower = graph.sole_reader(last.outputs[0])
    if follower is not None and follower.op == "Transpose" and rules.fuses(Family.ATTENTION, "float32", "transpose"):
        draft.take(follower, [])
        draft.writes = [(follower.outputs[0], graph.shape(follower.outputs[0]))]
    return draft


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
