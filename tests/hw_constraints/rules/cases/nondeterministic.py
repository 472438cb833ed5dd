from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def call(op: str, **attributes: object) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    noise = b.call(op, x, shape=(1, 8, 16, 16), **attributes)
    return b.graph(b.call("add", x, noise, shape=(1, 8, 16, 16)))


def scattered() -> Graph:
    b = GraphBuilder()
    index = b.input(1, 64, dtype="int64")
    return b.graph(b.call("scatter_add", b.parameter(1, 64), index, b.input(1, 64), shape=(1, 64), dim=1))


BAD = [
    RuleCase(name="noise", target="x86-vnni", graph=call("randn_like"), lines=(2,), severity=Severity.ERROR),
    RuleCase(
        name="dropout", target="h200", graph=call("dropout", p=0.1, train=True), lines=(2,), says="random numbers"
    ),
    RuleCase(name="sum", target="tensorrt-orin", graph=scattered(), lines=(1,), severity=Severity.WARNING),
]
GOOD = [
    RuleCase(name="dropout-is-off", target="x86-vnni", graph=call("dropout", p=0.1, train=False)),
    RuleCase(name="one-thread", target="x86-vnni", graph=scattered()),
]
