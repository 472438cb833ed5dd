"""A dimension that is open until the network runs, where the accelerator wants it fixed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_about, finding_at
from bitwright.hw_constraints.target_types import DynamicShapes
from bitwright.quant.graph import Graph, Node, TensorRef

_ALLOWED = {
    DynamicShapes.NONE: "fixed shapes only",
    DynamicShapes.BATCH: "fixed shapes, but for the batch of the inputs",
}


class DynamicShape:
    """Speaks about open inputs, and about the operators at which an open dimension arises from data."""

    name: ClassVar[str] = "dynamic_shape"
    summary: ClassVar[str] = "a dimension that is only known when the network runs"
    bad: ClassVar[str] = "points = points[points[:, 2] > 0]"
    good: ClassVar[str] = "points = torch.where(points[:, 2:] > 0, points, 0.0)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each origin of an open dimension."""
        dynamic = context.target.shapes.dynamic
        if dynamic is DynamicShapes.ALL:
            return
        allowed = f"{_ALLOWED[dynamic]} ({context.target.shapes.source.title})"
        for graph, ref in context.input_tensors():
            shape = graph.tensors[ref].shape
            if None in shape[1 if dynamic is DynamicShapes.BATCH else 0 :]:
                yield finding_about(
                    self.name,
                    graph,
                    ref,
                    severity=Severity.ERROR,
                    found=f"input {ref} has the shape {_spell(shape)}",
                    allowed=allowed,
                    suggestion=f"capture with a fixed size for {ref}, one artefact for each size that is needed",
                )
        for graph, node in context.computed_nodes():
            if _arises(graph, node):
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.ERROR,
                    found=f"{node.op} makes a tensor of shape {_spell(graph.tensors[node.outputs[0]].shape)}",
                    allowed=allowed,
                    suggestion="keep a fixed number of elements and mark the valid ones: torch.where, or top-k",
                )


def _is_open(graph: Graph, ref: TensorRef) -> bool:
    return None in graph.tensors[ref].shape


def _arises(graph: Graph, node: Node) -> bool:
    """Whether the node's own result is open though everything it reads is fixed."""
    opens = any(_is_open(graph, ref) for ref in node.outputs)
    # A size read from a tensor stands in the attributes as the name of the node that gives it.
    return opens and not any(_is_open(graph, ref) for ref in node.tensors)


def _spell(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


RULE = DynamicShape
