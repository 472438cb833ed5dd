from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def amid_float(features: int, out: int, around: str = "sin") -> Graph:
    b = GraphBuilder()
    x = b.call(around, b.input(1, features), shape=(1, features))
    x = b.call("linear", x, b.parameter(out, features), None, shape=(1, out), module="embed")
    return b.graph(b.call(around, x, shape=(1, out)))


BAD = [
    RuleCase(
        name="embedding", target="x86-vnni", graph=amid_float(4, 4), lines=(2,), says="8 elements for 16 products"
    ),
    RuleCase(name="fp8", target="h200", graph=amid_float(4, 6), lines=(2,), says="module 'embed'"),
]
GOOD = [
    RuleCase(name="large", target="x86-vnni", graph=amid_float(64, 64)),
    RuleCase(name="among-its-like", target="x86-vnni", graph=amid_float(4, 4, "sigmoid")),
]
