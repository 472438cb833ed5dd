from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def between(*ops: str) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 16, 16, 16), 16)
    for op in ops:
        x = b.call(op, x, shape=(1, 16, 16, 16))
    return b.graph(b.conv2d(x, 16))


def twice() -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 16, 16, 16), 16)
    x = b.conv2d(b.call("sin", x, shape=(1, 16, 16, 16)), 16)
    return b.graph(b.conv2d(b.call("sin", x, shape=(1, 16, 16, 16)), 16))


def at_the_end() -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("sin", b.conv2d(b.input(1, 16, 16, 16), 16), shape=(1, 16, 16, 16)))


def at_the_start() -> Graph:
    b = GraphBuilder()
    return b.graph(b.conv2d(b.call("sin", b.input(1, 16, 16, 16), shape=(1, 16, 16, 16)), 16))


def behind_a_move() -> Graph:
    """What the accelerator can move stays where it comes from: the break is `sin`, not the concatenation behind it."""
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 16, 16, 16), 16)
    y = b.call("sin", x, shape=(1, 16, 16, 16))
    return b.graph(b.conv2d(b.call("cat", y, x, shape=(1, 32, 16, 16), dim=1), 16))


BAD = [
    RuleCase(
        name="copied-twice",
        target="ethos-u85-1024",
        graph=between("sin"),
        lines=(2,),
        says="50 % of the products",
        severity=Severity.WARNING,
    ),
    RuleCase(name="behind-a-move", target="orin-dla", graph=behind_a_move(), lines=(2,), says="sin on the host"),
    RuleCase(name="one-stay", target="ethos-u85-1024", graph=between("sin", "cos"), lines=(2,)),
    RuleCase(
        name="everything-behind",
        target="edge-tpu",
        graph=between("sin"),
        lines=(2,),
        says="on the host as well",
        severity=Severity.ERROR,
    ),
]
BAD += [
    RuleCase(name="first-of-two", target="edge-tpu", graph=twice(), lines=(2,)),
    RuleCase(name="both", target="ethos-u85-1024", graph=twice(), lines=(2, 4)),
]
GOOD = [
    RuleCase(name="at-the-end", target="edge-tpu", graph=at_the_end()),
    RuleCase(name="at-the-start", target="edge-tpu", graph=at_the_start()),
    RuleCase(name="whole", target="edge-tpu", graph=between("relu")),
    RuleCase(name="float-on-the-same-chip", target="x86-vnni", graph=between("sin")),
]
