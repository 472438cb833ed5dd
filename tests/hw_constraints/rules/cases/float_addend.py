from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def residual(op: str) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    shortcut = b.call(op, x, shape=(1, 8, 16, 16))
    return b.graph(b.call("add", b.conv2d(x, 8), shortcut, shape=(1, 8, 16, 16)))


BAD = [
    RuleCase(
        name="x86",
        target="x86-vnni",
        graph=residual("sin"),
        lines=(4,),
        says="conv2d in low precision and sin in float",
    ),
    RuleCase(name="tensorrt", target="tensorrt-orin", graph=residual("layer_norm"), lines=(4,)),
]
GOOD = [
    RuleCase(name="both-codes", target="x86-vnni", graph=residual("max_pool2d")),
    RuleCase(name="in-low-precision", target="ethos-u85-1024", graph=residual("hardswish")),
]
