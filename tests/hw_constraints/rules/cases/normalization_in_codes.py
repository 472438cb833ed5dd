from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def norm(op: str) -> Graph:
    b = GraphBuilder()
    x = b.call("linear", b.input(1, 16, 64), b.parameter(64, 64), None, shape=(1, 16, 64))
    x = b.call(op, x, shape=(1, 16, 64))
    return b.graph(b.call("linear", x, b.parameter(64, 64), None, shape=(1, 16, 64)))


BAD = [
    RuleCase(name="layer-norm", target="ethos-u85-1024", graph=norm("layer_norm"), lines=(2,), says="from 8-bit codes"),
    RuleCase(name="group-norm", target="ethos-u65-512", graph=norm("group_norm"), lines=(2,)),
]
GOOD = [
    RuleCase(name="float-units", target="x86-vnni", graph=norm("layer_norm")),
    RuleCase(name="no-norm", target="ethos-u85-1024", graph=norm("relu")),
]
