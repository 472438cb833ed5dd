from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def selected(op: str) -> Graph:
    b = GraphBuilder()
    x = b.call("flatten", b.conv2d(b.input(1, 8, 16, 16), 1), shape=(1, 256))
    return b.graph(b.call(op, x, shape=(1, 100), k=100))


BAD = [
    RuleCase(name="topk", target="x86-vnni", graph=selected("topk"), lines=(3,), says="topk inside the network"),
    RuleCase(name="sort", target="h200", graph=selected("sort"), lines=(3,)),
]
GOOD = [
    RuleCase(name="argmax", target="x86-vnni", graph=selected("argmax")),
    RuleCase(name="on-the-host", target="ethos-u85-1024", graph=selected("topk")),
]
