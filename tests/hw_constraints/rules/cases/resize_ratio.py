from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def resized(before: tuple[int, int], after: tuple[int, int], op: str = "upsample_bilinear2d") -> Graph:
    b = GraphBuilder()
    return b.graph(b.call(op, b.input(1, 8, *before), shape=(1, 8, *after)))


BAD = [
    RuleCase(
        name="ratio", target="x86-vnni", graph=resized((32, 56), (45, 80)), lines=(1,), says="from 32x56 to 45x80"
    ),
    RuleCase(name="one-axis", target="h200", graph=resized((8, 8), (16, 20), "upsample_nearest2d"), lines=(1,)),
    RuleCase(name="bicubic", target="h200", graph=resized((8, 8), (16, 16), "upsample_bicubic2d"), lines=(1,)),
]
GOOD = [
    RuleCase(name="twice", target="x86-vnni", graph=resized((8, 8), (16, 16))),
    RuleCase(name="one-pixel", target="x86-vnni", graph=resized((1, 1), (15, 27))),
    RuleCase(name="half", target="x86-vnni", graph=resized((16, 16), (8, 8))),
]
