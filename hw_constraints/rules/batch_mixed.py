"""A reshape that moves channels into the batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.quant.graph import Graph, Node

_RESHAPES = frozenset({"view", "_unsafe_view", "reshape", "unflatten", "flatten"})


class BatchMixed:
    """Looks for images [batch, channels, height, width] that become [batch * k, channels / k, height, width].

    Accelerators keep channels innermost or packed and run one image after the other: the reshape is then no view but a
    copy of everything, and the layers behind it run k times over a k-th of the channels. Tools that cut the batch, or
    open it, cut in the wrong place. Merging cameras or frames that have an axis of their own is fine.
    """

    name: ClassVar[str] = "batch_mixed"
    summary: ClassVar[str] = "a reshape that moves channels into the batch"
    bad: ClassVar[str] = "x = x.view(b * groups, c // groups, h, w)"
    good: ClassVar[str] = "x = self.conv(x)  # nn.Conv2d(..., groups=groups) on the map as it is"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such reshape."""
        for graph, node in context.computed_nodes():
            if node.op in _RESHAPES and (moved := _moved(graph, node)):
                before, after = (graph.tensors[ref].shape for ref in (node.tensors[0], node.outputs[0]))
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} from {list(before)} to {list(after)} moves {moved} groups of channels into the "
                    "batch",
                    allowed="a batch that holds images, and nothing but images",
                    suggestion="a grouped convolution, or an axis of its own for the groups",
                )


def _moved(graph: Graph, node: Node) -> int:
    """How many groups of channels become images; 0 where none do."""
    before, after = graph.tensors[node.tensors[0]].shape, graph.tensors[node.outputs[0]].shape
    if len(before) != 4 or len(after) != 4 or None in before or None in after or before[2:] != after[2:]:
        return 0
    batch, channels, images = before[0] or 1, before[1] or 1, after[0] or 1
    groups = images // batch
    return groups if groups > 1 and images % batch == 0 and channels % groups == 0 else 0


RULE = BatchMixed
