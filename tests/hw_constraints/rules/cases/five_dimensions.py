from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def volume(depth: int) -> Graph:
    b = GraphBuilder()
    x = b.call("unsqueeze", b.input(1, 8, 16, 16), shape=(1, 8, 1, 16, 16))
    shape = (1, 8, depth, 16, 16)
    y = b.call("mul", x, b.input(*shape), shape=shape)
    return b.graph(b.call("relu", b.call("add", y, y, shape=shape), shape=shape))


def shuffle() -> Graph:
    b = GraphBuilder()
    x = b.call("reshape", b.conv2d(b.input(1, 8, 16, 16), 8), shape=(1, 2, 4, 16, 16))
    x = b.call("reshape", b.call("transpose", x, shape=(1, 4, 2, 16, 16), dim0=1, dim1=2), shape=(1, 8, 16, 16))
    return b.graph(b.conv2d(x, 8))


BAD = [
    RuleCase(name="volume", target="ethos-u85-1024", graph=volume(8), lines=(2,), says="5 dimensions"),
    RuleCase(name="dpu", target="tesla-fsd-hw3", graph=volume(4), lines=(2,), says="mul computes with 5 dimensions"),
]
GOOD = [
    RuleCase(name="gpu", target="h200", graph=volume(8)),
    RuleCase(name="moves", target="ethos-u85-1024", graph=shuffle()),
]
