from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.capture import CaptureFailure
from bitwright.quant.graph import Graph, SourceLine


def failure(*, data_dependent: bool) -> CaptureFailure:
    return CaptureFailure(
        reason="GuardOnDataDependentSymNode: could not guard",
        source=SourceLine("net.py", 7, "if x.mean() > 0:"),
        suggestion="use torch.where",
        data_dependent=data_dependent,
    )


def reads_a_value() -> Graph:
    b = GraphBuilder()
    x = b.input(1, 8)
    b.call("item", b.call("amax", x, shape=()), shape=(), line="n = x.max().item()")
    return b.graph(b.call("relu", x, shape=(1, 8)))


def plain() -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("relu", b.input(1, 8), shape=(1, 8)))


BAD = [
    RuleCase(
        name="branch",
        target="x86-vnni",
        capture_failures=(failure(data_dependent=True),),
        lines=(7,),
        says="torch.where",
    ),
    RuleCase(name="item", target="h200", graph=reads_a_value(), lines=(2,), says="read into Python"),
]
GOOD = [
    RuleCase(name="plain", target="x86-vnni", graph=plain()),
    RuleCase(name="another-reason", target="x86-vnni", capture_failures=(failure(data_dependent=False),)),
]
