from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def convolution(groups: int) -> Graph:
    b = GraphBuilder()
    return b.graph(b.conv2d(b.input(1, 96, 16, 16), 96, groups=groups))


BAD = [
    RuleCase(
        name="dpu", target="amd-dpu", graph=convolution(96), lines=(1,), says="96 channels in int8 with one scale"
    ),
    RuleCase(name="fsd", target="tesla-fsd-hw3", graph=convolution(96), lines=(1,), says="equalize"),
]
GOOD = [
    RuleCase(name="per-channel", target="x86-vnni", graph=convolution(96)),
    RuleCase(name="dense", target="amd-dpu", graph=convolution(1)),
]
