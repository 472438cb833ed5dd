from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def cast(between: str, after: str = "float32", *, work: bool = False) -> Graph:
    b = GraphBuilder()
    x = b.call("to", b.input(1, 8, 4), shape=(1, 8, 4), dtype=between)
    if work:
        x = b.call("relu", x, shape=(1, 8, 4), dtype=between)
    x = b.call("flatten", x, shape=(1, 32), dtype=between)
    return b.graph(b.call("to", x, shape=(1, 32), dtype=after))


BAD = [
    RuleCase(name="half", target="tensorrt-orin", graph=cast("float16"), lines=(3,), says="from float32 to float16"),
    RuleCase(name="double", target="x86-vnni", graph=cast("float64"), lines=(3,)),
]
GOOD = [
    RuleCase(name="computes", target="tensorrt-orin", graph=cast("float16", work=True)),
    RuleCase(name="rounds", target="x86-vnni", graph=cast("int64")),
    RuleCase(name="goes-on", target="x86-vnni", graph=cast("float16", "float64")),
]
