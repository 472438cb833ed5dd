from dataclasses import replace

from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph, TensorInfo, TensorKind, TensorRef


def remembering(*, changed: bool, line: str = "self.memory.copy_(x)") -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 8, 8), 8)
    memory = TensorRef("", "memory")
    b.tensors[memory] = TensorInfo(ref=memory, shape=(1, 8, 8, 8), dtype="float32", kind=TensorKind.STATE)
    y = b.call("add", x, memory, shape=(1, 8, 8, 8), line=line)
    graph = b.graph(y)
    return replace(graph, state=((memory, y),)) if changed else graph


BAD = [
    RuleCase(
        name="copied", target="x86-vnni", graph=remembering(changed=True), lines=(2,), says="changes buffer memory"
    ),
    RuleCase(name="elsewhere", target="h200", graph=remembering(changed=True, line="y = x + old"), lines=(2,)),
]
GOOD = [
    RuleCase(name="read-only", target="x86-vnni", graph=remembering(changed=False)),
    RuleCase(name="no-buffer", target="h200", graph=GraphBuilder().graph()),
]
