from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def reshaped(before: tuple[int, ...], after: tuple[int, ...], op: str = "reshape") -> Graph:
    b = GraphBuilder()
    return b.graph(b.call(op, b.input(*before), shape=after))


BAD = [
    RuleCase(
        name="groups", target="x86-vnni", graph=reshaped((1, 32, 8, 8), (4, 8, 8, 8)), lines=(1,), says="4 groups"
    ),
    RuleCase(name="channels-one-by-one", target="h200", graph=reshaped((2, 3, 8, 8), (6, 1, 8, 8)), lines=(1,)),
]
GOOD = [
    RuleCase(name="cameras", target="x86-vnni", graph=reshaped((1, 6, 3, 8, 8), (6, 3, 8, 8))),
    RuleCase(name="flatten", target="x86-vnni", graph=reshaped((2, 3, 8, 8), (2, 192))),
    RuleCase(name="tokens", target="x86-vnni", graph=reshaped((2, 3, 8, 8), (6, 64))),
]
