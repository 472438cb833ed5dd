"""Operators that give another result for the same input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.quant.graph import Graph, Node

_RANDOM = frozenset(
    {
        *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli"),
        *("multinomial", "normal", "normal_functional", "uniform", "exponential", "dropout", "native_dropout"),
        *("rrelu", "feature_dropout", "alpha_dropout"),
    }
)
_PARALLEL_SUMS = frozenset({"scatter_add", "index_add", "scatter_reduce", "index_put"})


class Nondeterministic:
    """Looks for random numbers, and for sums whose order is not fixed.

    A random operator inside the network makes every comparison between float and quantized one of two different
    networks, and few toolchains have one. On hardware with thousands of threads a scattered sum adds in whatever
    order they finish, and floating point rounds differently each time.
    """

    name: ClassVar[str] = "nondeterministic"
    summary: ClassVar[str] = "random numbers, or sums whose order is not fixed"
    bad: ClassVar[str] = "noise = torch.randn_like(x)  # in forward"
    good: ClassVar[str] = "def forward(self, x, noise): ...  # drawn outside"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such call."""
        graph = context.graph
        if graph is None:
            return
        threaded = any(engine.kind == "tensor_core" for engine in context.target.engines.values())
        for node in graph.nodes:
            if node.op in _RANDOM and not _is_off(node):
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.ERROR,
                    found=f"{node.op} draws random numbers",
                    allowed="the same result for the same input",
                    suggestion="draw them outside and pass them in; F.dropout needs training=self.training",
                )
            elif threaded and _adds_scattered(graph, node):
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} adds floating-point numbers in an order that is not fixed",
                    allowed=f"a fixed order of sums; {context.target.id} adds with many threads at once",
                    suggestion="sort by the index once and sum segments, or pool over a fixed grid",
                )


def _is_off(node: Node) -> bool:
    return "dropout" in node.op and node.attributes.get("train", node.attributes.get("training", True)) is False


def _adds_scattered(graph: Graph, node: Node) -> bool:
    if node.op not in _PARALLEL_SUMS or not graph.tensors[node.outputs[0]].is_floating:
        return False
    if node.op == "index_put":
        return bool(node.attributes.get("accumulate"))
    return node.op != "scatter_reduce" or node.attributes.get("reduce") in ("sum", "mean", "prod")


RULE = Nondeterministic
