from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def strided(kernel: int, stride: int) -> Graph:
    b = GraphBuilder()
    return b.graph(b.conv2d(b.input(1, 8, 32, 32), 8, kernel, stride=stride))


def pooled(kernel: int, stride: int) -> Graph:
    b = GraphBuilder()
    windows = {"kernel_size": (kernel, kernel), "stride": (stride, stride)}
    return b.graph(b.call("max_pool2d", b.input(1, 8, 32, 32), shape=(1, 8, 8, 8), **windows))


BAD = [
    RuleCase(name="convolution", target="x86-vnni", graph=strided(3, 4), lines=(1,), says="kernel 3 and stride 4"),
    RuleCase(name="pool", target="h200", graph=pooled(2, 4), lines=(1,)),
]
GOOD = [
    RuleCase(name="stem", target="x86-vnni", graph=strided(7, 2)),
    RuleCase(name="patches", target="x86-vnni", graph=strided(4, 4)),
    RuleCase(name="shortcut", target="x86-vnni", graph=strided(1, 2)),
]
