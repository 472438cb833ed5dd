"""64-bit integers where the accelerator computes with integers of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_about, finding_at

_MAKES_INDICES = frozenset({"to", "_to_copy", "arange", "floor_divide", "remainder", "mul", "add", "sub"})


class WideIndex:
    """Looks for 64-bit integer inputs and casts on targets without floating point.

    PyTorch's indices have 64 bits. Accelerators made for 8-bit codes have at most 32-bit integers beside them: the
    toolchain narrows what it can prove to fit, and leaves the rest to the host.
    """

    name: ClassVar[str] = "wide_index"
    summary: ClassVar[str] = "64-bit integers on an integer accelerator"
    bad: ClassVar[str] = "cells = (points / 0.2).long()"
    good: ClassVar[str] = "cells = (points / 0.2).int()"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each input and each origin of 64-bit integers."""
        if context.target.numerics.float_formats:
            return
        allowed = f"8 to 32 bits: {context.target.id} has no wider integers"
        for graph, ref in context.input_tensors():
            if graph.tensors[ref].dtype == "int64":
                yield finding_about(
                    self.name,
                    graph,
                    ref,
                    severity=Severity.WARNING,
                    found=f"input {ref} has 64-bit integers",
                    allowed=allowed,
                    suggestion=f"pass {ref} as int32, or look its values up outside",
                )
        for graph, node in context.computed_nodes():
            wide = any(graph.tensors[ref].dtype == "int64" for ref in node.outputs)
            arrives = any(graph.tensors[ref].dtype == "int64" for ref in node.tensors if not graph.is_constant(ref))
            if node.op in _MAKES_INDICES and wide and not arrives:
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{node.op} makes 64-bit integers",
                    allowed=allowed,
                    suggestion=".int() in place of .long(), or compute the indices outside",
                )


RULE = WideIndex
