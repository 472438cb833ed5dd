"""A shape that depends on values, on an accelerator that takes open shapes as such."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.target_types import DynamicShapes
from bitwright.quant.graph import Graph, Node


class DataDependentShape:
    """Speaks about operators whose result is as large as the values say, where `dynamic_shape` has no objection.

    Open sizes of inputs are known before a run. Sizes that come out of the data are known in the middle of it: memory
    cannot be planned ahead, the run waits for the count, and a recorded sequence of kernels cannot be played again.
    """

    name: ClassVar[str] = "data_dependent_shape"
    summary: ClassVar[str] = "a result that is as large as the values of a tensor say"
    bad: ClassVar[str] = "boxes = boxes[scores > 0.3]"
    good: ClassVar[str] = "scores, index = scores.topk(100); boxes = boxes.gather(0, index[:, None].expand(-1, 4))"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each operator at which such a size arises."""
        if context.target.shapes.dynamic is not DynamicShapes.ALL:
            return
        for graph, node in context.computed_nodes():
            if _arises(graph, node):
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} makes as many elements as the values of its operand say",
                    allowed="sizes that follow from those of the inputs, so that memory can be planned ahead",
                    suggestion="keep a fixed number of elements and mark the valid ones: torch.where, or top-k",
                )


def _arises(graph: Graph, node: Node) -> bool:
    opens = any(None in graph.tensors[ref].shape for ref in node.outputs)
    return opens and not any(None in graph.tensors[ref].shape for ref in node.tensors)


RULE = DataDependentShape
