from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def sampled(*, constant: bool) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    grid = b.parameter(1, 16, 16, 2) if constant else b.input(1, 16, 16, 2)
    return b.graph(b.call("grid_sampler", x, grid, shape=(1, 8, 16, 16), align_corners=False))


def shifted() -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("roll", b.input(1, 8, 16, 16), shape=(1, 8, 16, 16), shifts=(1,), dims=(2,)))


BAD = [
    RuleCase(name="computed", target="x86-vnni", graph=sampled(constant=False), lines=(2,), severity=Severity.WARNING),
    RuleCase(
        name="fixed", target="h200", graph=sampled(constant=True), lines=(2,), severity=Severity.INFO, says="table"
    ),
]
GOOD = [
    RuleCase(name="on-the-host", target="ethos-u85-1024", graph=sampled(constant=False)),
    RuleCase(name="shifted", target="x86-vnni", graph=shifted()),
]
