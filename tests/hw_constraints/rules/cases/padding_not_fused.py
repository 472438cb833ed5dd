from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def padded(op: str, pad: tuple[int, ...] = (1, 1, 1, 1), **attributes: object) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    height, width = 16 + pad[2] + pad[3], 16 + pad[0] + pad[1]
    x = b.call(op, x, shape=(1, 8, height, width), pad=pad, **attributes)
    return b.graph(b.conv2d(x, 8))


def added() -> Graph:
    b = GraphBuilder()
    x = b.call("constant_pad_nd", b.input(1, 8, 8, 8), shape=(1, 8, 10, 10), pad=(1, 1, 1, 1))
    return b.graph(b.call("add", x, x, shape=(1, 8, 10, 10)))


BAD = [
    RuleCase(
        name="reflect", target="x86-vnni", graph=padded("pad", mode="reflect"), lines=(2,), says="'reflect' copies"
    ),
    RuleCase(name="replicate", target="tensorrt-orin", graph=padded("replication_pad2d"), lines=(2,)),
    RuleCase(
        name="zeros", target="ethos-u85-1024", graph=padded("constant_pad_nd", value=0.0), lines=(2,), says="zeros"
    ),
]
GOOD = [
    RuleCase(name="other-than-zeros", target="ethos-u85-1024", graph=padded("constant_pad_nd", value=1.0)),
    RuleCase(name="one-side", target="x86-vnni", graph=padded("constant_pad_nd", (0, 1, 0, 1))),
    RuleCase(name="no-convolution", target="x86-vnni", graph=added()),
    RuleCase(name="runs-in-codes", target="ethos-u85-1024", graph=padded("reflection_pad2d")),
]
