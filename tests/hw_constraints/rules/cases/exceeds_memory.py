from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def volume(channels: int, side: int) -> Graph:
    b = GraphBuilder()
    return b.graph(b.conv2d(b.input(1, 8, side, side), channels))


def linear(features: int) -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("linear", b.input(1, features), b.parameter(features, features), None, shape=(1, features)))


# 141 GB and 50 MB are the memories of an H200, 128 GB those of a Thor; both keep eight bits.
BAD = [
    RuleCase(
        name="tensor",
        target="h200",
        graph=volume(4096, 8192),
        lines=(1,),
        says="256 GiB [1, 4096, 8192, 8192] | 131.3 GiB in hbm",
    ),
    RuleCase(
        name="weights",
        target="tensorrt-thor",
        graph=linear(400_000),
        lines=(None, 1),
        says="all weights together take 149 GiB",
    ),
]
GOOD = [
    RuleCase(name="fits", target="h200", graph=volume(64, 1024)),
    RuleCase(name="size-not-known", target="ethos-u85-1024", graph=volume(4096, 8192)),
]
