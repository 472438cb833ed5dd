from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def resized(*, align: bool, before: tuple[int, int] = (16, 16), op: str = "upsample_bilinear2d") -> Graph:
    b = GraphBuilder()
    after = (1, 16, 2 * before[0], 2 * before[1])
    return b.graph(b.call(op, b.input(1, 16, *before), shape=after, align_corners=align))


BAD = [
    RuleCase(name="bilinear", target="x86-vnni", graph=resized(align=True), lines=(1,), says="align_corners=True"),
    RuleCase(name="bicubic", target="h200", graph=resized(align=True, op="upsample_bicubic2d"), lines=(1,)),
]
GOOD = [
    RuleCase(name="half-pixel", target="x86-vnni", graph=resized(align=False)),
    RuleCase(name="one-pixel", target="x86-vnni", graph=resized(align=True, before=(1, 1))),
]
