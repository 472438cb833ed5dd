from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def activated(op: str, *, followed: bool = True) -> Graph:
    b = GraphBuilder()
    x = b.call(op, b.conv2d(b.input(1, 8, 16, 16), 8), shape=(1, 8, 16, 16))
    return b.graph(b.conv2d(x, 8) if followed else x)


def read_twice(op: str = "sigmoid") -> Graph:
    """`x * op(x)`; with a sigmoid that is SiLU, written out."""
    b = GraphBuilder()
    before = b.conv2d(b.input(1, 8, 16, 16), 8)
    gate = b.call(op, before, shape=(1, 8, 16, 16))
    return b.graph(b.conv2d(b.call("mul", before, gate, shape=(1, 8, 16, 16)), 8))


BAD = [
    RuleCase(
        name="silu", target="x86-vnni", graph=activated("silu"), lines=(2,), says="silu behind conv2d runs in float"
    ),
    RuleCase(
        name="silu-in-parts", target="ethos-u85-1024", graph=activated("silu"), lines=(2,), says="as sigmoid, mul"
    ),
    RuleCase(
        name="sigmoid",
        target="x86-vnni",
        graph=activated("sigmoid"),
        lines=(2,),
        says="in low precision | as one: conv2d with hardtanh or relu",
    ),
    RuleCase(name="hardswish", target="tensorrt-orin", graph=activated("hardswish"), lines=(2,)),
    RuleCase(name="table-of-what-is-written", target="ethos-u85-1024", graph=read_twice("tanh"), lines=(2,)),
]
GOOD = [
    RuleCase(name="relu", target="x86-vnni", graph=activated("relu")),
    RuleCase(name="at-the-end", target="x86-vnni", graph=activated("sigmoid", followed=False)),
    RuleCase(name="table", target="ethos-u55-128", graph=activated("hardswish")),
    RuleCase(name="silu-written-out", target="x86-vnni", graph=read_twice()),
    RuleCase(name="table-of-gelu", target="ethos-u85-1024", graph=activated("gelu")),
    RuleCase(name="table-of-elu", target="ethos-u65-512", graph=activated("elu")),
    RuleCase(name="on-the-host", target="ethos-u85-1024", graph=activated("mish")),
]
