"""The same operator on the same operands twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.operators import CREATIONS, MOVEMENTS
from bitwright.quant.graph import Node, TensorRef

_RANDOM = ("rand", "dropout", "bernoulli", "multinomial", "normal", "uniform", "exponential")
# Below, the second time costs less than the reader's attention.
_WORTH_IT = 1024  # elements


class DuplicateComputation:
    """Numbers values: two calls with one operator, one list of operands and one list of arguments have one result.

    Few toolchains look for that across a network's modules. Where a whole chain is computed twice, only its start is
    reported. Copies and reshapes cost next to nothing and are left out.
    """

    name: ClassVar[str] = "duplicate_computation"
    summary: ClassVar[str] = "the same computation on the same tensors twice"
    bad: ClassVar[str] = "a = self.neck(x); b = self.neck(x) * 2"
    good: ClassVar[str] = "a = self.neck(x); b = a * 2"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each second time."""
        same: dict[TensorRef, TensorRef] = {}
        first: dict[object, Node] = {}
        for graph, node in context.computed_nodes():
            if node.op in CREATIONS or any(part in node.op for part in _RANDOM):
                continue
            operands = tuple(same.get(ref, ref) if ref else None for ref in node.inputs)
            key = (node.op, operands, repr(sorted(node.attributes.items(), key=lambda item: item[0])))
            earlier = first.setdefault(key, node)
            if earlier is node:
                continue
            follows = any(ref in same for ref in node.tensors)
            same.update(zip(node.outputs, earlier.outputs, strict=True))
            if node.op in MOVEMENTS or follows:
                continue
            shape = graph.tensors[node.outputs[0]].shape
            elements = 0 if None in shape else graph.tensors[node.outputs[0]].elements
            if not graph.is_layer(node) and elements < _WORTH_IT:
                continue
            line = f" as in line {earlier.source.line}" if earlier.source else ""
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} computes what {earlier.name} has computed{line}",
                allowed="each value computed once",
                suggestion="keep the first result in a variable and use it again",
            )


RULE = DuplicateComputation
