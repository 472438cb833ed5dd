from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph, Node, TensorInfo, TensorKind, TensorRef


def ranked(*, kept: int = 4, start: int = 0) -> Graph:
    b = GraphBuilder()
    order = b.call("argsort", b.input(2, 32), shape=(2, 32), dtype="int64", dim=-1, descending=True)
    return b.graph(b.call("slice", order, shape=(2, kept), dtype="int64", dim=1, start=start, end=start + kept, step=1))


def fetched(*, other: bool = False) -> Graph:
    b = GraphBuilder()
    scores, boxes = b.input(2, 32), b.input(2, 32)
    refs = tuple(TensorRef("", "", 0, 9, i) for i in range(2))
    for ref, dtype in zip(refs, ("float32", "int64"), strict=True):
        b.tensors[ref] = TensorInfo(ref=ref, shape=(2, 4), dtype=dtype, kind=TensorKind.ACTIVATION)
    attributes = {"k": 4, "dim": -1, "largest": True, "sorted": True}
    b.nodes.append(Node(name="topk", op="topk", inputs=(scores,), outputs=refs, attributes=attributes))
    return b.graph(b.call("gather", boxes if other else scores, refs[1], shape=(2, 4), dim=1))


BAD = [
    RuleCase(name="argsort", target="x86-vnni", graph=ranked(), lines=(1,), says="of which 4 are read"),
    RuleCase(name="gather", target="x86-vnni", graph=fetched(), lines=(2,), says="values that topk has returned"),
]
GOOD = [
    RuleCase(name="all-are-read", target="x86-vnni", graph=ranked(kept=32)),
    RuleCase(name="from-the-middle", target="x86-vnni", graph=ranked(start=3)),
    RuleCase(name="of-another-tensor", target="x86-vnni", graph=fetched(other=True)),
]
