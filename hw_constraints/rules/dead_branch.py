"""Work, or weights, from which no result of the network follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.operators import MOVEMENTS
from bitwright.quant.graph import Graph, TensorRef

_ALLOWED = "modules and operators that a result follows from"


class DeadBranch:
    """Walks back from the results and the outgoing state, and looks at what the walk never meets.

    A file from another exporter may hold operators whose results nobody reads. Captured networks lose them on the way,
    and the modules behind them stay as weights: heads for training, or a branch whose result was forgotten.
    """

    name: ClassVar[str] = "dead_branch"
    summary: ClassVar[str] = "operators or modules from which no result follows"
    bad: ClassVar[str] = "aux = self.aux_head(x); return self.head(x)"
    good: ClassVar[str] = "return self.head(x)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each end of a dead branch, and each module that takes no part."""
        for path in context.unused_modules:
            yield Finding(
                rule=self.name,
                severity=Severity.WARNING,
                node=path,
                found=f"module {path} has weights and takes no part in any result",
                allowed=_ALLOWED,
                suggestion="leave it out of the deployed network, or use its result",
                module_path=path,
            )
        if context.graph is None:
            return
        alive = _alive(context.graph)
        for graph, node in context.computed_nodes():
            if node.op in MOVEMENTS:
                continue  # a reader of shapes alone, such as zeros_like, leaves it behind, and it costs nothing
            ends = not any(graph.consumers[ref] for ref in node.outputs)
            if node.outputs and ends and not any(ref in alive for ref in node.outputs):
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"nobody reads the result of {node.op}",
                    allowed=_ALLOWED,
                    suggestion="leave out what leads to it",
                )


def _alive(graph: Graph) -> set[TensorRef]:
    alive = {*graph.outputs, *(after for _, after in graph.state)}
    for node in reversed(graph.nodes):
        if any(ref in alive for ref in node.outputs):
            alive.update(node.tensors)
    return alive


RULE = DeadBranch
