"""Reads at coordinates that the network computes: grid_sample, deformable convolution, RoI align."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.graph import Graph, Node

_SAMPLERS = frozenset(
    {"grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "deform_conv2d", "roi_align", "roi_pool", "ps_roi_align"}
)


class Sampling:
    """Looks for sampling at computed coordinates.

    Each result reads four or eight scattered addresses, in float, since no target has it in low precision: an island
    between the layers, bound by memory latency rather than arithmetic. Its coordinates have to stay in float whatever
    happens around them.
    """

    name: ClassVar[str] = "sampling"
    summary: ClassVar[str] = "sampling at computed coordinates"
    bad: ClassVar[str] = "bev = F.grid_sample(features, grid)"
    good: ClassVar[str] = "bev = features.flatten(2)[..., self.cells]  # a fixed table, for fixed cameras"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such call in float."""
        for graph, node in context.computed_nodes():
            if node.op in _SAMPLERS and context.place(node) is Place.FLOAT:
                fixed = _fixed(graph, node)
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.INFO if fixed else Severity.WARNING,
                    found=f"{node.op} reads at {'constant' if fixed else 'computed'} coordinates, in float",
                    allowed=f"operators that {context.target.id} has in low precision, and addresses known before",
                    suggestion="a table of indices and weights computed once: index_select and a weighted sum"
                    if fixed
                    else "sample outside the quantized part, or at fixed places from a table computed once",
                )


def _fixed(graph: Graph, node: Node) -> bool:
    return len(node.tensors) > 1 and graph.is_constant(node.tensors[1])


RULE = Sampling
