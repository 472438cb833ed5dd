from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def attention(keys: int) -> Graph:
    b = GraphBuilder()
    scores = b.call("bmm", b.input(1, 16, 32), b.input(1, 32, keys), shape=(1, 16, keys))
    return b.graph(b.call("softmax", scores, shape=(1, 16, keys), dim=-1))


BAD = [
    RuleCase(
        name="long",
        target="ethos-u85-1024",
        graph=attention(4096),
        lines=(2,),
        says="over 4096 entries in 8 bits, 0.062 steps",
    ),
    RuleCase(name="x86", target="x86-vnni", graph=attention(256), lines=(2,), says="keep it in float"),
]
GOOD = [
    RuleCase(name="window", target="ethos-u85-1024", graph=attention(64)),
    RuleCase(name="in-float", target="tensorrt-orin", graph=attention(4096)),
]
