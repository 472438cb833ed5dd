"""Operators in floating point between layers in low precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.operators import ACTIVATIONS, MOVEMENTS, MULTIPLICATIONS
from bitwright.hw_constraints.placement import Place
from bitwright.quant.graph import Graph, Node

# Nothing in low precision does the same, or it reads a map once, for good; networks are made of them.
_ONLY_MENTIONED = frozenset(
    {
        *("softmax", "log_softmax", "layer_norm", "group_norm", "rms_norm", "scaled_dot_product_attention"),
        *("mean", "adaptive_avg_pool2d", "avg_pool2d", "amax", "adaptive_max_pool2d"),
    }
)
# Other rules speak about these where they run in float.
_ELSEWHERE = frozenset(
    {
        *("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "deform_conv2d", "roi_align", "topk", "sort"),
        *("scatter", "scatter_add", "scatter_reduce", "index_put", "index_add", "batch_norm", "instance_norm"),
        *("pad", "reflection_pad2d", "replication_pad2d", "constant_pad_nd", "index", "gather", "nms", "argsort"),
        *("cumsum", "cumprod"),
    }
)


class FloatIsland:
    """Speaks where an island begins: at the operator in float that reads what a low-precision layer made.

    Every island costs a conversion to float, one back, and traffic at two to four times the bytes; the accelerator's
    fusions end at its shores. Layers and activations that stay in float have rules of their own. Targets that have
    nothing but products in low precision convert around every layer anyway.
    """

    name: ClassVar[str] = "float_island"
    summary: ClassVar[str] = "operators in float between layers in low precision"
    bad: ClassVar[str] = "x = self.conv2(torch.sin(self.conv1(x)))"
    good: ClassVar[str] = "x = self.conv2(F.relu(self.conv1(x)))"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each island and each way into it."""
        computes_between = context.target.operators.quantized - MULTIPLICATIONS
        if context.graph is None or not computes_between:
            return
        graph = context.graph
        inside = {
            node.name
            for _, node in context.computed_nodes()
            if context.place(node) is Place.FLOAT and _real(graph, node)
        }
        leading_back = _leading_back(context, graph, inside)
        for _, node in context.computed_nodes():
            entered = any(
                (maker := context.maker(ref)) is not None and context.place(maker) is Place.LOW for ref in node.tensors
            )
            if not entered or node.name not in leading_back or node.op in _ELSEWHERE or graph.is_layer(node):
                continue
            if node.op in context.target.operators.shared_qparams:
                continue  # it would pass codes on; what is in float stands before it
            behind = context.maker(node.tensors[0])
            if context.is_place(node.outputs[0]) or (
                node.op in ACTIVATIONS and behind is not None and graph.is_layer(behind)
            ):
                continue
            yield finding_at(
                self.name,
                node,
                severity=Severity.INFO if _is_minor(node) else Severity.WARNING,
                found=f"{node.op} runs in float between layers in low precision",
                allowed=f"operators that {context.target.id} has in low precision (bitwright targets "
                f"{context.target.id})",
                suggestion="keep it out of the quantized part, or keep its neighbours in float, too"
                if node.op in _ONLY_MENTIONED
                else "write it with operators that run in low precision, or move it behind the last layer",
            )


def _is_minor(node: Node) -> bool:
    """Whether the user has no choice (a step inside a torch module), or nothing is computed."""
    moves = node.op in MOVEMENTS or node.op in ("copy", "slice_scatter", "select_scatter")
    return moves or node.op in _ONLY_MENTIONED or node.module_type == "MultiheadAttention"


def _floats(context: LintContext, graph: Graph, node: Node) -> bool:
    return context.place(node) is Place.FLOAT and _real(graph, node)


def _real(graph: Graph, node: Node) -> bool:
    return any(graph.tensors[ref].is_floating for ref in node.outputs)


def _leading_back(context: LintContext, graph: Graph, inside: set[str]) -> set[str]:
    """The nodes in float from which a path through nodes in float leads into low precision."""
    leading: set[str] = set()
    for node in reversed(graph.nodes):
        if node.name in inside and any(
            reader.name in leading or (context.place(reader) is Place.LOW and _real(graph, reader))
            for ref in node.outputs
            for reader in context.readers(ref)
        ):
            leading.add(node.name)
    return leading


RULE = FloatIsland
