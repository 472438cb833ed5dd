from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def computed(op: str, **attributes: object) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    second = (b.conv2d(x, 8),) if op == "div" and not attributes else ()
    return b.graph(b.conv2d(b.call(op, x, *second, shape=(1, 8, 16, 16), **attributes), 8))


def squared() -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    return b.graph(b.conv2d(b.call("mul", x, x, shape=(1, 8, 16, 16)), 8))


BAD = [
    RuleCase(name="exp", target="ethos-u85-1024", graph=computed("exp"), lines=(2,), says="exp in 8 bits"),
    RuleCase(name="quotient", target="ethos-u85-1024", graph=computed("div"), lines=(3,)),
    RuleCase(name="square", target="x86-vnni", graph=squared(), lines=(2,)),
]
GOOD = [
    RuleCase(name="by-a-number", target="ethos-u85-1024", graph=computed("div", other=2.0)),
    RuleCase(name="in-float", target="x86-vnni", graph=computed("exp")),
    RuleCase(name="wide-format", target="h200", graph=computed("exp")),
]
