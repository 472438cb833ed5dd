from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def cells(dtype: str) -> Graph:
    b = GraphBuilder()
    index = b.call("to", b.input(1, 64), shape=(1, 64), dtype=dtype)
    return b.graph(b.call("index_select", b.parameter(8, 4), index, shape=(64, 4), dim=0))


def given(dtype: str) -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("embedding", b.parameter(8, 4), b.input(1, 64, dtype=dtype), shape=(1, 64, 4)))


BAD = [
    RuleCase(name="cast", target="ethos-u85-1024", graph=cells("int64"), lines=(1,), says="to makes 64-bit integers"),
    RuleCase(name="input", target="edge-tpu", graph=given("int64"), lines=(1,), says="input $x0"),
]
GOOD = [
    RuleCase(name="32-bits", target="ethos-u85-1024", graph=cells("int32")),
    RuleCase(name="processor", target="x86-vnni", graph=cells("int64")),
]
