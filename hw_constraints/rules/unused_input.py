"""An input that nothing depends on, or a result that depends on no input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext


class UnusedInput:
    """Looks at both ends of the network.

    Toolchains drop an input that is never read, so that the deployed network has another signature than the captured
    one; calibration feeds it for nothing. A result that depends on no input is a constant that the accelerator copies
    out each time.
    """

    name: ClassVar[str] = "unused_input"
    summary: ClassVar[str] = "an input that nothing depends on, or a constant result"
    bad: ClassVar[str] = "def forward(self, image, timestamp): return self.head(self.backbone(image))"
    good: ClassVar[str] = "def forward(self, image): return self.head(self.backbone(image))"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such input and result."""
        graph = context.graph
        if graph is None:
            return
        for ref in graph.inputs:
            if ref.region:  # what a caller passes to a part of the network is no signature of what is deployed
                continue
            if not graph.consumers[ref] and ref not in graph.outputs and ref not in {new for _, new in graph.state}:
                yield Finding(
                    rule=self.name,
                    severity=Severity.WARNING,
                    node=str(ref),
                    found=f"nothing depends on input {ref}",
                    allowed="inputs that the network reads",
                    suggestion=f"leave {ref} out of forward, or fix it as a constant",
                )
        computed = {ref for _, node in context.computed_nodes() for ref in node.outputs}
        arriving = {ref for _, ref in context.input_tensors()}
        for position, ref in enumerate(graph.outputs):
            if ref not in computed and ref not in arriving:
                yield Finding(
                    rule=self.name,
                    severity=Severity.WARNING,
                    node=str(ref),
                    found=f"result {position} depends on no input",
                    allowed="results that depend on the inputs",
                    suggestion="keep the constant beside the network and do not return it",
                )


RULE = UnusedInput
