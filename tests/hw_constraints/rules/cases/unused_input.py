from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph, TensorInfo, TensorKind, TensorRef


def inputs(*, read: bool) -> Graph:
    b = GraphBuilder()
    x, time = b.input(1, 8), b.input(1, 8)
    y = b.call("relu", x, shape=(1, 8))
    return b.graph(b.call("add", y, time, shape=(1, 8)) if read else y)


def constant_result() -> Graph:
    b = GraphBuilder()
    y = b.call("relu", b.input(1, 8), shape=(1, 8))
    return b.graph(y, b.parameter(4, 4))


def part() -> Graph:
    """A region whose caller passes more than it reads."""
    b = GraphBuilder()
    y = b.call("relu", b.input(1, 8), shape=(1, 8))
    unread = TensorRef("head", "$pool")
    b.tensors[unread] = TensorInfo(ref=unread, shape=(1, 8), dtype="float32", kind=TensorKind.INPUT)
    b.inputs.append(unread)
    return b.graph(y)


BAD = [
    RuleCase(name="never-read", target="x86-vnni", graph=inputs(read=False), lines=(None,), says="input $x1"),
    RuleCase(
        name="constant", target="h200", graph=constant_result(), lines=(None,), says="result 1 depends on no input"
    ),
]
GOOD = [
    RuleCase(name="read", target="x86-vnni", graph=inputs(read=True)),
    RuleCase(name="region", target="x86-vnni", graph=part()),
    RuleCase(name="nothing-captured", target="x86-vnni"),
]
