from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def behind(op: str, before: str = "", **attributes: object) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    if before:
        x = b.call(before, x, shape=(1, 8, 16, 16))
    return b.graph(b.call(op, x, shape=(1, 8, 16, 16), **attributes))


BAD = [
    RuleCase(
        name="relu-behind-sigmoid",
        target="x86-vnni",
        graph=behind("relu", "sigmoid"),
        lines=(3,),
        says="never negative",
    ),
    RuleCase(name="times-one", target="h200", graph=behind("mul", other=1), lines=(2,), says="other operand is 1"),
]
GOOD = [
    RuleCase(name="relu-behind-tanh", target="x86-vnni", graph=behind("relu", "tanh")),
    RuleCase(name="times-two", target="x86-vnni", graph=behind("mul", other=2)),
    RuleCase(name="one-over-x", target="x86-vnni", graph=behind("mul", "reciprocal", other=1)),
    RuleCase(name="plus-one", target="x86-vnni", graph=behind("add", other=1)),
]
