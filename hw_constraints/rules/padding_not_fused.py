"""Padding as an operator of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.graph import CONVOLUTIONS, Graph, Node

_BY_NAME = {"reflection_pad1d": "reflect", "reflection_pad2d": "reflect", "replication_pad1d": "replicate",
            "replication_pad2d": "replicate", "constant_pad_nd": "constant", "pad": "constant"}  # fmt: skip


class PaddingNotFused:
    """Looks at padding before convolutions: zeros that the convolution could add by itself, and other than zeros.

    Convolutions add zeros while they read, at no cost. Any other padding copies the whole map into a larger one first,
    on most targets in float. Zeros that are not the same on both sides are a matter of the toolchain and left alone.
    """

    name: ClassVar[str] = "padding_not_fused"
    summary: ClassVar[str] = "padding that a convolution does not take in"
    bad: ClassVar[str] = "self.conv = nn.Conv2d(64, 64, 3, padding=1, padding_mode='reflect')"
    good: ClassVar[str] = "self.conv = nn.Conv2d(64, 64, 3, padding=1)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such padding."""
        for graph, node in context.computed_nodes():
            if node.op not in _BY_NAME:
                continue
            mode = node.attributes.get("mode") or _BY_NAME[node.op]
            found = _zeros(graph, node) if mode == "constant" else _others(context, node, str(mode))
            if found:
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=found,
                    allowed="zeros on both sides, which a convolution adds while it reads",
                    suggestion="padding= of the convolution, with zeros",
                )


def _zeros(graph: Graph, node: Node) -> str:
    """What to say about zeros that the only reader, a convolution, could add."""
    reader = graph.sole_consumer(node.outputs[0])
    if reader is None or reader.op not in CONVOLUTIONS or node.attributes.get("value"):
        return ""
    pads = list(node.attributes.get("pad") or ())
    sides = list(zip(pads[::2], pads[1::2], strict=False))
    spatial = len(graph.tensors[node.tensors[0]].shape) - 2
    same = all(isinstance(a, int) and a == b and a >= 0 for a, b in sides)
    inside = all(pair == (0, 0) for pair in sides[spatial:])
    return "zeros around the map are written before the convolution reads it" if pads and same and inside else ""


def _others(context: LintContext, node: Node, mode: str) -> str:
    if context.place(node) is not Place.FLOAT:
        return ""
    return f"padding with mode {mode!r} copies the map, in float"


RULE = PaddingNotFused
