from dataclasses import replace

import numpy as np

from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def masked(value: float) -> Graph:
    b = GraphBuilder()
    q = b.input(1, 16, 16)
    scores = b.call("bmm", q, q, shape=(1, 16, 16))
    mask = b.input(1, 16, 16, dtype="bool")
    filled = b.call("masked_fill", scores, mask, shape=(1, 16, 16), value=value)
    return b.graph(b.call("softmax", filled, shape=(1, 16, 16), dim=-1))


def added(value: float) -> Graph:
    b = GraphBuilder()
    q, mask = b.input(1, 16, 16), b.parameter(16, 16)
    scores = b.call("add", b.call("bmm", q, q, shape=(1, 16, 16)), mask, shape=(1, 16, 16))
    graph = b.graph(b.call("softmax", scores, shape=(1, 16, 16), dim=-1))
    return replace(graph, load=lambda ref: np.triu(np.full((16, 16), value), 1))


BAD = [
    RuleCase(name="infinity", target="x86-vnni", graph=masked(float("-inf")), lines=(2,), says="puts -inf into"),
    RuleCase(name="a-billion", target="ethos-u85-1024", graph=masked(-1e9), lines=(2,), says="8 bits"),
    RuleCase(name="added", target="x86-vnni", graph=added(-1e9), lines=(2,), says="add puts -1e+09"),
]
GOOD = [
    RuleCase(name="small", target="x86-vnni", graph=masked(-30.0)),
    RuleCase(name="softmax-in-float", target="tensorrt-orin", graph=masked(float("-inf"))),
    RuleCase(name="small-constant", target="x86-vnni", graph=added(-30.0)),
]
