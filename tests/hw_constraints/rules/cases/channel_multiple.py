from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def layers(*channels: int) -> Graph:
    b = GraphBuilder()
    x = b.input(1, 3, 16, 16)
    for count in channels:
        x = b.conv2d(x, count)
    return b.graph(x)


def pruned_linear() -> Graph:
    b = GraphBuilder()
    x = b.call("linear", b.input(1, 32), b.parameter(27, 32), None, shape=(1, 27))
    return b.graph(b.call("linear", x, b.parameter(10, 27), None, shape=(1, 10)))


def squeezed() -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 64, 1, 1), 18, kernel=1)
    return b.graph(b.conv2d(x, 64, kernel=1))


BAD = [
    RuleCase(
        name="pruned",
        target="x86-vnni",
        graph=layers(61, 64),
        lines=(1,),
        says="61 channels",
        severity=Severity.WARNING,
    ),
    RuleCase(
        name="linear",
        target="tensorrt-orin",
        graph=pruned_linear(),
        lines=(1,),
        says="27 channels, stored as 32: 5 are padding",
    ),
    RuleCase(
        name="packed", target="ethos-u85-1024", graph=layers(20, 64), lines=(1,), says="32", severity=Severity.INFO
    ),
]
GOOD = [
    RuleCase(name="multiples", target="ethos-u85-1024", graph=layers(32, 64)),
    RuleCase(name="results", target="x86-vnni", graph=layers(64, 85)),
    RuleCase(name="squeezed", target="x86-vnni", graph=squeezed()),
    RuleCase(name="few", target="x86-vnni", graph=layers(3, 64)),
    RuleCase(name="little-padding", target="ethos-u85-1024", graph=layers(60, 64)),
]
