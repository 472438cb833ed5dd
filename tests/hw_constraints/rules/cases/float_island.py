from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def between(*ops: str) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    for op in ops:
        x = b.call(op, x, shape=(1, 8, 16, 16))
    return b.graph(b.conv2d(x, 8))


def last(op: str) -> Graph:
    b = GraphBuilder()
    return b.graph(b.call(op, b.conv2d(b.input(1, 8, 16, 16), 8), shape=(1, 8, 16, 16)))


BAD = [
    RuleCase(
        name="sine",
        target="x86-vnni",
        graph=between("sin"),
        lines=(2,),
        says="sin runs in float",
        severity=Severity.WARNING,
    ),
    RuleCase(name="only-its-shore", target="x86-vnni", graph=between("sin", "cos", "flip"), lines=(2,)),
    RuleCase(name="norm", target="tensorrt-orin", graph=between("layer_norm"), lines=(2,), severity=Severity.INFO),
]
GOOD = [
    RuleCase(name="at-the-end", target="x86-vnni", graph=last("sin")),
    RuleCase(name="in-low-precision", target="x86-vnni", graph=between("max_pool2d")),
    RuleCase(name="another-rule-speaks", target="x86-vnni", graph=between("silu")),
    RuleCase(name="on-the-host", target="ethos-u85-1024", graph=between("sin")),
]
