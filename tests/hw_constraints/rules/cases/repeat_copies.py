from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def repeated(reader: str, before: tuple[int, ...] = (1, 8, 1, 1)) -> Graph:
    b = GraphBuilder()
    x, small = b.input(1, 8, 16, 16), b.input(*before)
    copies = b.call("repeat", small, shape=(1, 8, 16, 16), repeats=(1, 1, 16, 16))
    return b.graph(b.call(reader, x, copies, shape=(1, 8, 16, 16)))


BAD = [
    RuleCase(name="mul", target="x86-vnni", graph=repeated("mul"), lines=(1,), says="256 copies for mul"),
    RuleCase(name="add", target="h200", graph=repeated("add", (1, 8, 1, 16)), lines=(1,), says="16 copies"),
]
GOOD = [
    RuleCase(name="cat", target="x86-vnni", graph=repeated("cat")),
    RuleCase(name="tiled", target="x86-vnni", graph=repeated("add", (1, 8, 4, 4))),
]
