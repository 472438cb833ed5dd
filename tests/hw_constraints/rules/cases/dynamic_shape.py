from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def open_batch() -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("relu", b.input(None, 8), shape=(None, 8)))


def nonzero() -> Graph:
    b = GraphBuilder()
    points = b.input(100, 4)
    kept = b.call("nonzero", points, shape=(None, 2), dtype="int64", line="keep = mask.nonzero()")
    return b.graph(b.call("index", points, kept, shape=(None, 4)))


def fixed() -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("relu", b.input(1, 8), shape=(1, 8)))


BAD = [
    RuleCase(name="open-batch", target="ethos-u85-1024", graph=open_batch(), lines=(1,), says="[?, 8]"),
    RuleCase(name="from-data", target="ethos-u85-1024", graph=nonzero(), lines=(1,), says="torch.where"),
]
GOOD = [
    RuleCase(name="fixed", target="ethos-u85-1024", graph=fixed()),
    RuleCase(name="open-where-allowed", target="x86-vnni", graph=open_batch()),
    RuleCase(name="from-data-where-allowed", target="x86-vnni", graph=nonzero()),
]
