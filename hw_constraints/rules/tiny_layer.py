"""A layer in low precision all by itself that is too small to pay for its conversions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.graph import Graph, Node

# Converting an element takes about four operations (scale, round, clamp, cast); a product in 8 bits saves three
# quarters of one. So 5.3 products an element are needed; below 4 it is a loss whatever the kernels are like.
_PRODUCTS = 4


class TinyLayer:
    """Looks for layers with float before and behind them, and counts products for each element converted.

    Its input is quantized for it alone and its result converted back. With fewer than four products for each of those
    elements, the conversions take longer than the layer would in float.
    """

    name: ClassVar[str] = "tiny_layer"
    summary: ClassVar[str] = "a lone layer whose conversions cost more than low precision gains"
    bad: ClassVar[str] = "speed = torch.sin(self.embed(torch.sin(can_bus)))  # nn.Linear(4, 4)"
    good: ClassVar[str] = "quantize: {overrides: [{module: embed, keep_float: true}]}"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such layer."""
        for graph, node in context.computed_nodes():
            if not graph.is_layer(node) or context.place(node) is not Place.LOW or not _alone(context, graph, node):
                continue
            converted = _converted(graph, node)
            if converted is None or graph.macs(node) >= _PRODUCTS * converted:
                continue
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} amid float operators converts {converted} elements for {graph.macs(node)} products",
                allowed=f"{_PRODUCTS} products or more for each element that is converted for them",
                suggestion=f"keep module {node.module_path!r} in float" if node.module_path else "keep it in float",
            )


def _alone(context: LintContext, graph: Graph, node: Node) -> bool:
    """Whether something in float stands before it and behind it, and nothing in low precision."""
    makers = [context.maker(ref) for ref in node.tensors if not graph.is_constant(ref)]
    readers = [reader for ref in node.outputs for reader in context.readers(ref)]
    around = [*makers, *readers]
    return bool(makers and readers) and all(each and context.place(each) is Place.FLOAT for each in around)


def _converted(graph: Graph, node: Node) -> int | None:
    tensors = [graph.tensors[ref] for ref in (*node.tensors, *node.outputs) if not graph.is_constant(ref)]
    return None if any(None in info.shape for info in tensors) else sum(info.elements for info in tensors)


RULE = TinyLayer
