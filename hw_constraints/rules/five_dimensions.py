"""Arithmetic on tensors with five dimensions or more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.operators import MOVEMENTS
from bitwright.hw_constraints.placement import Place
from bitwright.hw_constraints.target_hardware import EngineKind
from bitwright.quant.graph import Graph, TensorRef

_IMAGES = 4


class FiveDimensions:
    """Looks for operators that compute with 5-D tensors on arrays that are built for images.

    Arrays and their compilers address batch, height, width and channels; a depth or camera axis beside them has no
    loop of its own and ends in reshapes around every operator, or on the host. Reshapes alone are no matter. Processors
    and GPUs address any number of dimensions.
    """

    name: ClassVar[str] = "five_dimensions"
    summary: ClassVar[str] = "arithmetic on 5-D tensors where the hardware has loops for images"
    bad: ClassVar[str] = "volume = depth.unsqueeze(1) * features.unsqueeze(2)  # [b, c, d, h, w]"
    good: ClassVar[str] = "volume = ...  # [b * d, c, h, w]: depth as more images"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding where each run of such operators begins."""
        kinds = {engine.kind for engine in context.target.engines.values()}
        if EngineKind.MAC_ARRAY not in kinds:
            return
        for graph, node in context.computed_nodes():
            if node.op in MOVEMENTS or context.place(node) is not Place.LOW:
                continue
            deep = [ref for ref in node.tensors if _is_deep(graph, ref) and not graph.is_constant(ref)]
            makers = [context.maker(ref) for ref in deep]
            goes_on = any(m is not None and any(_is_deep(graph, ref) for ref in m.outputs) for m in makers)
            if deep and not goes_on:
                shape = graph.tensors[deep[0]].shape
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} computes with {len(shape)} dimensions",
                    allowed=f"batch, channels, height and width: the loops of {context.target.id}'s array",
                    suggestion="merge the extra axis into the batch (reshape) before it, and split it off behind",
                )


def _is_deep(graph: Graph, ref: TensorRef) -> bool:
    shape = graph.tensors[ref].shape
    return len(shape) > _IMAGES and graph.tensors[ref].is_floating and sum(size != 1 for size in shape) > _IMAGES - 1


RULE = FiveDimensions
