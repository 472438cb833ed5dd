from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def written(op: str, index: str = "int64", *, constant: bool = False) -> Graph:
    b = GraphBuilder()
    canvas, points = b.input(1, 8, 256), b.input(1, 8, 64)
    places = b.parameter(1, 8, 64, dtype=index) if constant else b.input(1, 8, 64, dtype=index)
    operands = (canvas, places, points)
    return b.graph(b.call(op, *operands, shape=(1, 8, 256), dim=2))


BAD = [
    RuleCase(name="pillars", target="x86-vnni", graph=written("scatter"), lines=(1,), says="element by element"),
    RuleCase(name="mask", target="h200", graph=written("index_put", "bool"), lines=(1,), says="torch.where"),
]
GOOD = [
    RuleCase(name="constant-table", target="x86-vnni", graph=written("scatter", constant=True)),
    RuleCase(name="on-the-host", target="ethos-u85-1024", graph=written("scatter")),
    RuleCase(name="a-read", target="x86-vnni", graph=written("gather")),
]
