"""Python control flow that the value of a tensor decides: no graph can hold it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at

# Operators that hand a tensor's value back to Python.
_READS_A_VALUE = frozenset({"item", "_local_scalar_dense"})
# Operators that hold other graphs and decide by a value which one runs and how often: torch's, and ONNX's own.
_RUNS_BY_A_VALUE = frozenset({"cond", "while_loop", "If", "Loop", "Scan"})


class DataDependentControlFlow:
    """Passes on what capture found, and speaks about values that leave the graph."""

    name: ClassVar[str] = "data_dependent_control_flow"
    summary: ClassVar[str] = "a branch, a loop or a scalar that depends on the value of a tensor"
    bad: ClassVar[str] = "if x.mean() > 0: x = self.refine(x)"
    good: ClassVar[str] = "x = torch.where(x.mean() > 0, self.refine(x), x)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such place."""
        for failure in context.capture_failures:
            if failure.data_dependent:
                yield Finding(
                    rule=self.name,
                    severity=Severity.ERROR,
                    node="",
                    found=failure.reason,
                    allowed="the same operators for every input",
                    suggestion=failure.suggestion,
                    source=failure.source,
                )
        for _, node in context.computed_nodes():
            if node.op in _READS_A_VALUE:
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.ERROR,
                    found="the value of a tensor is read into Python",
                    allowed="values that stay in tensors",
                    suggestion="compute with the tensor itself, or keep the number as a Python attribute",
                )
            elif node.op in _RUNS_BY_A_VALUE:
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.ERROR,
                    found=f"{node.op}: a value decides which operators run, or how often",
                    allowed="the same operators for every input",
                    suggestion="use torch.where, or a fixed number of steps, and export the model again",
                )


RULE = DataDependentControlFlow
