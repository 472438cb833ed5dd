from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def trip(*ops: str, last: tuple[int, ...] = (0, 3, 1, 2)) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    x = b.call("permute", x, shape=(1, 16, 16, 8), dims=(0, 2, 3, 1))
    for op in ops:
        constants = (b.parameter(8, 8), None) if op == "linear" else ()
        x = b.call(op, x, *constants, shape=(1, 16, 16, 8), normalized_shape=(8,))
    return b.graph(b.call("permute", x, shape=(1, 8, 16, 16), dims=last))


def attention() -> Graph:
    b = GraphBuilder()
    x = b.call("transpose", b.input(1, 64, 16), shape=(1, 16, 64), dim0=1, dim1=2)
    scores = b.call("bmm", b.input(1, 64, 16), x, shape=(1, 64, 64))
    return b.graph(b.call("transpose", scores, shape=(1, 64, 64), dim0=1, dim1=2))


def swapped() -> Graph:
    b = GraphBuilder()
    x = b.call("transpose", b.input(1, 64, 16), shape=(1, 16, 64), dim0=-1, dim1=-2)
    return b.graph(b.call("transpose", b.call("relu", x, shape=(1, 16, 64)), shape=(1, 64, 16), dim0=1, dim1=2))


def token_mixing() -> Graph:
    b = GraphBuilder()
    x = b.call("transpose", b.input(1, 64, 16), shape=(1, 16, 64), dim0=1, dim1=2)
    x = b.call("linear", x, b.parameter(32, 64), None, shape=(1, 16, 32))
    return b.graph(b.call("transpose", x, shape=(1, 32, 16), dim0=1, dim1=2))


BAD = [
    RuleCase(
        name="nothing-between",
        target="x86-vnni",
        graph=trip(),
        lines=(3,),
        says="permute of line 2; between them: nothing",
    ),
    RuleCase(name="activation", target="h200", graph=trip("relu"), lines=(4,), severity=Severity.WARNING),
    RuleCase(
        name="linear", target="ethos-u85-1024", graph=trip("linear", "relu", "linear"), lines=(6,), says="1x1 kernel"
    ),
    RuleCase(name="norm", target="x86-vnni", graph=trip("layer_norm"), lines=(4,), severity=Severity.INFO),
    RuleCase(name="token-mixing", target="h200", graph=token_mixing(), lines=(3,), severity=Severity.INFO),
    RuleCase(name="transposes", target="x86-vnni", graph=swapped(), lines=(3,)),
]
GOOD = [
    RuleCase(name="another-way", target="x86-vnni", graph=trip("relu", last=(0, 3, 2, 1))),
    RuleCase(name="needs-the-layout", target="x86-vnni", graph=trip("softmax")),
    RuleCase(name="attention", target="x86-vnni", graph=attention()),
]
