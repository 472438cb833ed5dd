from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def selected(op: str) -> Graph:
    b = GraphBuilder()
    points = b.input(100, 4)
    kept = b.call(op, points, shape=(None, 2), dtype="int64", line="kept = select(points)")
    return b.graph(b.call("index", points, kept, shape=(None, 4)))


def open_batch() -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("relu", b.input(None, 8), shape=(None, 8)))


def fixed() -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("topk", b.input(1, 8), shape=(1, 4)))


BAD = [
    RuleCase(name="nonzero", target="x86-vnni", graph=selected("nonzero"), lines=(1,), says="top-k"),
    RuleCase(name="unique", target="tensorrt-orin", graph=selected("_unique2"), lines=(1,), says="as many elements"),
]
GOOD = [
    RuleCase(name="open-input", target="x86-vnni", graph=open_batch()),
    RuleCase(name="fixed", target="x86-vnni", graph=fixed()),
    RuleCase(name="dynamic-shape-speaks-already", target="ethos-u85-1024", graph=selected("nonzero")),
]
