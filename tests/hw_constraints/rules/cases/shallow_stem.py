from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def stem(channels: int = 3, kernel: int = 7, stride: int = 2, size: int = 64) -> Graph:
    b = GraphBuilder()
    return b.graph(b.conv2d(b.input(1, channels, size, size), 32, kernel, stride=stride))


# 49 taps of ceil(3 / 8) steps against 16 taps of ceil(12 / 8).
BAD = [
    RuleCase(name="7x7", target="ethos-u65-512", graph=stem(), lines=(1,), says="49 steps | 32 steps"),
    RuleCase(name="grey", target="ethos-u55-128", graph=stem(1, 5), lines=(1,), says="of 1 channels"),
]
GOOD = [
    RuleCase(name="stride-1", target="ethos-u65-512", graph=stem(stride=1)),
    RuleCase(name="3x3-gains-little", target="ethos-u65-512", graph=stem(kernel=3)),
    RuleCase(name="odd-image", target="ethos-u65-512", graph=stem(size=63)),
    RuleCase(name="wide", target="ethos-u65-512", graph=stem(channels=32)),
    RuleCase(name="no-array-described", target="x86-vnni", graph=stem()),
]
