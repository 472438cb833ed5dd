from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.capture import CaptureFailure
from bitwright.quant.graph import Graph, SourceLine

LINE = SourceLine("net.py", 3, "y = custom_cuda_op(x)")
FAILURE = CaptureFailure(reason="RuntimeError: no fake kernel", source=LINE, suggestion="register a fake kernel")
NOWHERE = CaptureFailure(reason="forward mutates its argument 'x'", source=None, suggestion="return the new value")
BRANCH = CaptureFailure(reason="GuardOnDataDependent", source=LINE, suggestion="torch.where", data_dependent=True)


def plain() -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("relu", b.input(1, 8), shape=(1, 8)))


BAD = [
    RuleCase(name="custom-op", target="x86-vnni", capture_failures=(FAILURE,), lines=(3,), says="fake kernel"),
    RuleCase(name="without-a-line", target="h200", capture_failures=(NOWHERE,), lines=(None,), says="mutates"),
]
GOOD = [
    RuleCase(name="captured", target="x86-vnni", graph=plain()),
    RuleCase(name="said-by-another-rule", target="x86-vnni", capture_failures=(BRANCH,)),
]
