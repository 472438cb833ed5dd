from dataclasses import replace

from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.formats import FORMATS
from bitwright.quant.graph import Graph
from bitwright.quant.plan import QuantPlan, plan


def activated(op: str) -> Graph:
    b = GraphBuilder()
    x = b.call(op, b.conv2d(b.input(1, 8, 16, 16), 8), shape=(1, 8, 16, 16), min_val=0.0, max_val=6.0)
    return b.graph(b.conv2d(x, 8))


def planned(graph: Graph, fmt: str) -> QuantPlan:
    scheme = load_target("x86-vnni").scheme()
    return plan(graph, replace(scheme, activations=replace(scheme.activations, format=FORMATS[fmt])))


RELU, CLIPPED = activated("relu"), activated("hardtanh")
BAD = [
    RuleCase(
        name="four-bits",
        target="x86-vnni",
        graph=RELU,
        plan=planned(RELU, "uint4"),
        lines=(2,),
        says="kept in uint4 | bounded activations where there are only 16",
    ),
    RuleCase(name="two-bits", target="h200", graph=RELU, plan=planned(RELU, "uint2"), lines=(2,), says="4 codes"),
]
GOOD = [
    RuleCase(name="clipped", target="x86-vnni", graph=CLIPPED, plan=planned(CLIPPED, "uint4")),
    RuleCase(name="eight-bits", target="x86-vnni", graph=RELU, plan=planned(RELU, "uint8")),
    RuleCase(name="default", target="x86-vnni", graph=RELU),
]
