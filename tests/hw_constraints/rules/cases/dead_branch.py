from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def branch(*, read: bool) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 8, 8), 8)
    aux = b.call("relu", b.conv2d(x, 4), shape=(1, 4, 8, 8))
    head = b.conv2d(x, 8)
    return b.graph(head, aux) if read else b.graph(head)


BAD = [
    RuleCase(
        name="operators",
        target="x86-vnni",
        graph=branch(read=False),
        lines=(3,),
        says="nobody reads the result of relu",
    ),
    RuleCase(
        name="module", target="h200", graph=branch(read=True), unused_modules=("aux",), lines=(None,), says="module aux"
    ),
]
GOOD = [
    RuleCase(name="returned", target="x86-vnni", graph=branch(read=True)),
    RuleCase(name="nothing-captured", target="x86-vnni"),
]
