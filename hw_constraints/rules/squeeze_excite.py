"""A squeeze-and-excitation block: a tiny path in another range, and a product with the whole map."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.graph import Graph, Node, TensorRef

_GATES = frozenset({"sigmoid", "hardsigmoid", "tanh", "hardtanh"})
# Layers and activations between the pool and the gate: conv, act, conv, and a reshape or scaling or two.
_LONGEST = 8


class SqueezeExcite:
    """Looks for a map multiplied by a gate that was computed from the map's own global mean.

    The pooled vector, the gate in [0, 1] and the map have unlike ranges, and the block's layers see one position only:
    each costs its two conversions and a launch for next to no work, and the product reads and writes the whole map
    once more. Small networks get slower in int8 than they were in float by it.
    """

    name: ClassVar[str] = "squeeze_excite"
    summary: ClassVar[str] = "a squeeze-and-excitation block"
    bad: ClassVar[str] = "x = x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))"
    good: ClassVar[str] = "x = self.conv(x)  # without the block and a little wider, then trained further"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each block, at the product."""
        for graph, node in context.computed_nodes():
            if node.op != "mul" or len(node.tensors) != 2:
                continue
            for gate, whole in (node.tensors, node.tensors[::-1]):
                if _is_gate_of(context, graph, gate, whole):
                    runs = context.place(node) is Place.LOW
                    where = "reads and writes all of it once more" if runs else "runs in float between int8 layers"
                    yield finding_at(
                        self.name,
                        node,
                        severity=Severity.WARNING,
                        found=f"squeeze-and-excitation: the product with the map {where}",
                        allowed="layers that see enough positions to pay for their conversions",
                        suggestion="leave the block out and widen the layer, or compute the gate at one stage only",
                    )
                    break


def _is_gate_of(context: LintContext, graph: Graph, gate: TensorRef, whole: TensorRef) -> bool:
    shape, spatial = graph.tensors[gate].shape, graph.tensors[whole].shape[2:]
    if len(shape) < 4 or any(size != 1 for size in shape[2:]) or not any(size != 1 for size in spatial):
        return False
    node = context.maker(gate)
    gated = False
    for _ in range(_LONGEST):
        if node is None or not node.tensors:
            return False
        gated = gated or node.op in _GATES
        if _pools_all(graph, node):
            return gated and context.maker(node.tensors[0]) is context.maker(whole)
        node = context.maker(_data(graph, node))
    return False


def _data(graph: Graph, node: Node) -> TensorRef:
    return next((ref for ref in node.tensors if not graph.is_constant(ref)), node.tensors[0])


def _pools_all(graph: Graph, node: Node) -> bool:
    if node.op not in ("mean", "adaptive_avg_pool2d", "avg_pool2d", "amax", "adaptive_max_pool2d"):
        return False
    before, after = graph.tensors[node.tensors[0]].shape, graph.tensors[node.outputs[0]].shape
    return len(before) == 4 and None not in before[2:] and before[2:] != (1, 1) and all(n == 1 for n in after[2:])


RULE = SqueezeExcite
