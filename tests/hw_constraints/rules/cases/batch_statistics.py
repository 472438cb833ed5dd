from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def norm(op: str, **attributes: object) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    return b.graph(b.call(op, x, b.parameter(8), b.parameter(8), shape=(1, 8, 16, 16), **attributes))


BAD = [
    RuleCase(
        name="training-form", target="x86-vnni", graph=norm("batch_norm", training=True), lines=(2,), says="batch"
    ),
    RuleCase(
        name="instance",
        target="tensorrt-orin",
        graph=norm("instance_norm", use_input_stats=True),
        lines=(2,),
        says="map",
    ),
]
GOOD = [
    RuleCase(name="eval", target="x86-vnni", graph=norm("batch_norm", training=False)),
    RuleCase(name="tracked-instance", target="x86-vnni", graph=norm("instance_norm", use_input_stats=False)),
]
