from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def normalized(before: str) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    if before:
        x = b.call(before, x, shape=(1, 8, 16, 16))
    x = b.call("batch_norm", x, b.parameter(8), b.parameter(8), shape=(1, 8, 16, 16), training=False)
    return b.graph(b.conv2d(x, 8))


def read_twice() -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    y = b.call("batch_norm", x, b.parameter(8), b.parameter(8), shape=(1, 8, 16, 16), training=False)
    return b.graph(b.call("add", x, y, shape=(1, 8, 16, 16)))


BAD = [
    RuleCase(
        name="behind-relu", target="x86-vnni", graph=normalized("relu"), lines=(3,), says="batch_norm behind relu"
    ),
    RuleCase(name="read-twice", target="h200", graph=read_twice(), lines=(2,), says="others read"),
]
GOOD = [
    RuleCase(name="behind-a-convolution", target="x86-vnni", graph=normalized("")),
    RuleCase(name="behind-a-convolution-fp8", target="h200", graph=normalized("")),
]
