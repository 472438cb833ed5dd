from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def volume(channels: int, side: int) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, side, side), channels)
    return b.graph(b.call("relu", x, shape=(1, channels, side, side)))


def classifier(features: int) -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("linear", b.input(1, features), b.parameter(4096, features), None, shape=(1, 4096)))


BAD = [
    # 64 * 512 * 512 bytes at 12 GB/s are 1.4 ms.
    RuleCase(
        name="map", target="ethos-u85-1024", graph=volume(64, 512), lines=(1,), says="16 MiB: 1.4 ms through dram"
    ),
    RuleCase(
        name="weights",
        target="ethos-u85-1024",
        graph=classifier(25088),
        lines=(1,),
        says="weights of linear take 98 MiB",
    ),
]
GOOD = [
    RuleCase(name="small", target="ethos-u85-1024", graph=volume(64, 128)),
    RuleCase(name="fast-memory", target="h200", graph=volume(64, 512)),
    RuleCase(name="bandwidth-not-public", target="x86-vnni", graph=volume(64, 512)),
]
