from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def block(gate: str, pool: str = "mean", *, own: bool = True) -> Graph:
    b = GraphBuilder()
    x = b.call("relu", b.conv2d(b.input(1, 32, 16, 16), 32), shape=(1, 32, 16, 16))
    other = x if own else b.call("relu", b.conv2d(x, 32), shape=(1, 32, 16, 16))
    small = b.call(pool, x, shape=(1, 32, 1, 1), dim=(2, 3))
    small = b.call("relu", b.conv2d(small, 8, 1), shape=(1, 8, 1, 1))
    small = b.call(gate, b.conv2d(small, 32, 1), shape=(1, 32, 1, 1))
    return b.graph(b.conv2d(b.call("mul", other, small, shape=(1, 32, 16, 16)), 32))


BAD = [
    RuleCase(
        name="sigmoid",
        target="x86-vnni",
        graph=block("sigmoid"),
        lines=(8,),
        says="reads and writes all of it once more",
    ),
    RuleCase(
        name="hardsigmoid",
        target="tensorrt-orin",
        graph=block("hardsigmoid", "adaptive_avg_pool2d"),
        lines=(8,),
        says="float",
    ),
]
GOOD = [
    RuleCase(name="no-gate", target="x86-vnni", graph=block("relu")),
    RuleCase(name="another-map", target="x86-vnni", graph=block("sigmoid", own=False)),
]
