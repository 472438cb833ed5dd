from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def twice(op: str, *, same: bool = True, shape: tuple[int, ...] = (1, 16, 16, 16), **attributes: object) -> Graph:
    b = GraphBuilder()
    x = b.input(*shape)
    other = x if same else b.input(*shape)
    first = b.call(op, x, shape=shape, **attributes)
    second = b.call(op, other, shape=shape, **attributes)
    return b.graph(b.call("add", first, second, shape=shape))


def convolved(count: int) -> Graph:
    b = GraphBuilder()
    x = b.input(1, 8, 8, 8)
    weight, results = b.parameter(8, 8, 1, 1), []
    for _ in range(count):
        y = b.call("conv2d", x, weight, None, shape=(1, 8, 8, 8), stride=(1, 1))
        results.append(b.call("relu", y, shape=(1, 8, 8, 8)))
    return b.graph(*results)


BAD = [
    RuleCase(name="layer", target="x86-vnni", graph=convolved(2), lines=(3,), says="conv2d computes what conv2d_0"),
    RuleCase(name="map", target="h200", graph=twice("sigmoid"), lines=(2,), says="line 1"),
]
GOOD = [
    RuleCase(name="once", target="x86-vnni", graph=convolved(1)),
    RuleCase(name="other-operand", target="x86-vnni", graph=twice("sigmoid", same=False)),
    RuleCase(name="few-elements", target="x86-vnni", graph=twice("sigmoid", shape=(1, 16))),
    RuleCase(name="random", target="x86-vnni", graph=twice("rand_like")),
    RuleCase(name="move", target="x86-vnni", graph=twice("flatten")),
]
