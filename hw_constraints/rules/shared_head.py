"""One head over several pyramid levels: its weights are one, its activations' ranges are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.graph import Graph, Node, TensorRef


class SharedHead:
    """Looks for layers that read one weight and maps of unlike size.

    The levels of a pyramid differ in range, so each call needs scales of its own, while a fake quantizer inside the
    module has one for all; several toolchains refuse a weight that two layers read (torchao's X86 quantizer: "conv
    partition has more than one output node"), others store it once for each level. The same weight over maps of one
    size (two cameras, time steps) is fine.
    """

    name: ClassVar[str] = "shared_head"
    summary: ClassVar[str] = "one module over feature maps of several sizes"
    bad: ClassVar[str] = "return [self.head(level) for level in pyramid]"
    good: ClassVar[str] = "return [head(level) for head, level in zip(self.heads, pyramid)]"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each head, at its first layer of the second call."""
        users: dict[TensorRef, list[Node]] = {}
        shown: set[object] = set()
        for graph, node in context.computed_nodes():
            weight = _weight(graph, node)
            if weight is not None and context.place(node) is Place.LOW:
                users.setdefault(weight, []).append(node)
        for layers in users.values():
            assert context.graph is not None
            sizes = frozenset(context.graph.tensors[node.outputs[0]].shape[2:] for node in layers)
            head = (layers[0].module_path.partition(".")[0], sizes)
            if len(sizes) < 2 or head in shown:
                continue
            shown.add(head)
            yield finding_at(
                self.name,
                layers[1],
                severity=Severity.WARNING,
                found=f"{layers[0].op} of {layers[0].module_path or 'one weight'} runs over maps of {len(sizes)} sizes",
                allowed="scales for each level: one set of them fits one level",
                suggestion="a head for each level, or shared convolutions with a norm of its own for each level",
            )


def _weight(graph: Graph, node: Node) -> TensorRef | None:
    """The constant weight of a layer over images."""
    if not node.op.startswith("conv") or len(node.tensors) < 2 or not graph.is_constant(node.tensors[1]):
        return None
    return node.tensors[1]


RULE = SharedHead
