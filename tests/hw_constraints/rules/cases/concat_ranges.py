from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def joined(left: str, right: str) -> Graph:
    b = GraphBuilder()
    x = b.input(1, 8, 8, 8)
    parts = [b.call(op, b.conv2d(x, 8), shape=(1, 8, 8, 8)) for op in (left, right)]
    return b.graph(b.call("cat", *parts, shape=(1, 16, 8, 8), dim=1))


MEASURED = joined("add", "add")
FIRST, SECOND = MEASURED.nodes[-1].tensors
BAD = [
    RuleCase(
        name="score-beside-relu", target="x86-vnni", graph=joined("sigmoid", "relu"), lines=(5,), says="within 1 beside"
    ),
    RuleCase(
        name="measured",
        target="ethos-u85-1024",
        graph=MEASURED,
        ranges={FIRST: (-1.0, 1.0), SECOND: (-40.0, 10.0)},
        lines=(5,),
        says="within 40",
    ),
]
GOOD = [
    RuleCase(name="alike", target="x86-vnni", graph=joined("relu", "relu")),
    RuleCase(name="both-bounded", target="x86-vnni", graph=joined("sigmoid", "softmax")),
    RuleCase(name="scales-of-their-own", target="h200", graph=joined("sigmoid", "relu")),
    RuleCase(
        name="measured-alike",
        target="ethos-u85-1024",
        graph=MEASURED,
        ranges={FIRST: (-1.0, 1.0), SECOND: (-2.0, 1.0)},
    ),
    RuleCase(name="not-known", target="x86-vnni", graph=joined("sigmoid", "add")),
]
