"""A transpose of a tensor with five dimensions or more."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.target_hardware import EngineKind
from bitwright.quant.graph import Node

_IMAGES = 4


class DeepTranspose:
    """Looks for permutations of tensors that have an axis more than images, on arrays that are built for images.

    Such accelerators move data by batch, height, width and channels. A channel shuffle as it is usually written, or the
    windows of a transformer, permute five axes and six; most of these stay together, so that three axes would do. A
    permutation that moves nothing but axes of length 1 is a reshape.
    """

    name: ClassVar[str] = "deep_transpose"
    summary: ClassVar[str] = "a transpose of five axes or more where the hardware moves images"
    bad: ClassVar[str] = "x = x.view(n, 2, c // 2, h, w).transpose(1, 2)"
    good: ClassVar[str] = "x = x.view(2, c // 2, h * w).transpose(0, 1)  # batch 1: the axes that stay together are one"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such transpose."""
        if EngineKind.MAC_ARRAY not in {engine.kind for engine in context.target.engines.values()}:
            return
        for graph, node in context.computed_nodes():
            if node.op not in ("permute", "transpose"):
                continue
            shape = graph.tensors[node.tensors[0]].shape
            order = _order(node, len(shape))
            moved = [axis for axis in order if shape[axis] != 1]
            if len(shape) <= _IMAGES or moved == sorted(moved):
                continue
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} of {len(shape)} axes, {list(shape)}; {_runs(moved)} would do",
                allowed=f"up to {_IMAGES} axes: {context.target.id} moves batch, channels, height and width",
                suggestion="reshape first, so that axes that stay neighbours are one",
            )


def _order(node: Node, rank: int) -> list[int]:
    if node.op == "permute":
        return [axis % rank for axis in node.attributes["dims"]]
    order = list(range(rank))
    first, second = node.attributes["dim0"] % rank, node.attributes["dim1"] % rank
    order[first], order[second] = second, first
    return order


def _runs(moved: list[int]) -> int:
    """How many axes are left when neighbours that stay neighbours are merged."""
    places = {axis: place for place, axis in enumerate(sorted(moved))}
    return 1 + sum(places[b] != places[a] + 1 for a, b in itertools.pairwise(moved))


RULE = DeepTranspose
