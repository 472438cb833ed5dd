from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def two(first: tuple[int, ...], second: tuple[int, ...], *, also_read: bool = False) -> Graph:
    b = GraphBuilder()
    shape = (2, 3, 4, 5)
    turned = tuple(shape[axis] for axis in first)
    x = b.call("permute", b.input(*shape), shape=turned, dims=first)
    y = b.call("permute", x, shape=tuple(turned[axis] for axis in second), dims=second)
    return b.graph(y, b.call("relu", x, shape=turned)) if also_read else b.graph(y)


def batch_of_one(size: int) -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("transpose", b.input(size, 7, 8), shape=(7, size, 8), dim0=0, dim1=1))


BAD = [
    RuleCase(
        name="two-in-a-row",
        target="x86-vnni",
        graph=two((0, 2, 3, 1), (0, 2, 1, 3)),
        lines=(2,),
        says="one permute(0, 3, 2, 1)",
        severity=Severity.WARNING,
    ),
    RuleCase(
        name="moves-nothing",
        target="x86-vnni",
        graph=batch_of_one(1),
        lines=(1,),
        says="axes of length 1",
        severity=Severity.INFO,
    ),
]
GOOD = [
    RuleCase(name="undone", target="x86-vnni", graph=two((0, 2, 3, 1), (0, 3, 1, 2))),
    RuleCase(name="read-between", target="x86-vnni", graph=two((0, 2, 3, 1), (0, 2, 1, 3), also_read=True)),
    RuleCase(name="moves-the-batch", target="x86-vnni", graph=batch_of_one(2)),
]
