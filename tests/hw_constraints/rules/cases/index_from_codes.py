from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def looked_up(*, from_layer: bool = True, best: bool = False) -> Graph:
    b = GraphBuilder()
    x = b.input(1, 8, 16, 16)
    y = b.conv2d(x, 4) if from_layer else x
    shape = b.tensors[y].shape
    if best:
        index = b.call("argmax", y, shape=(1, 16, 16), dtype="int64", dim=1)
    else:
        scaled = b.call("mul", b.call("sigmoid", y, shape=shape), shape=shape, other=255)
        index = b.call("to", scaled, shape=shape, dtype="int64")
    table = b.parameter(256)
    return b.graph(b.call("index", table, index, shape=b.tensors[index].shape, line="depth = self.table[index]"))


def scattered() -> Graph:
    b = GraphBuilder()
    y = b.conv2d(b.input(1, 8, 16, 16), 1)
    rows = b.call("to", y, shape=(1, 1, 16, 16), dtype="int64")
    canvas = b.parameter(1, 1, 16, 16)
    return b.graph(b.call("scatter_add", canvas, rows, y, shape=(1, 1, 16, 16)))


BAD = [
    RuleCase(name="table", target="x86-vnni", graph=looked_up(), lines=(5,), says="rounded from conv2d"),
    RuleCase(name="scatter", target="tensorrt-orin", graph=scattered(), lines=(3,), says="scatter_add reads"),
]
GOOD = [
    RuleCase(name="of-an-input", target="x86-vnni", graph=looked_up(from_layer=False)),
    RuleCase(name="best-of-several", target="x86-vnni", graph=looked_up(best=True)),
]
