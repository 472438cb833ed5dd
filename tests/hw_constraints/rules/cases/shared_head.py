from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def pyramid(*sides: int, shared: bool = True) -> Graph:
    b = GraphBuilder()
    weight, results = b.parameter(8, 8, 3, 3), []
    for side in sides:
        x = b.input(1, 8, side, side)
        own = weight if shared else b.parameter(8, 8, 3, 3)
        y = b.call("conv2d", x, own, None, shape=(1, 8, side, side), module="head.conv", line="self.head(x)")
        results.append(b.call("relu", y, shape=(1, 8, side, side)))
    return b.graph(*results)


BAD = [
    RuleCase(
        name="levels",
        target="x86-vnni",
        graph=pyramid(32, 16, 8),
        lines=(3,),
        says="head.conv runs over maps of 3 sizes",
    ),
    RuleCase(name="two-levels", target="h200", graph=pyramid(32, 16), lines=(3,), says="2 sizes"),
]
GOOD = [
    RuleCase(name="stereo", target="x86-vnni", graph=pyramid(32, 32)),
    RuleCase(name="own-heads", target="x86-vnni", graph=pyramid(32, 16, shared=False)),
]
