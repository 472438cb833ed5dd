"""A batch norm that no layer takes in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at


class NormNotFolded:
    """Looks for batch norms that are left after folding and stand in no chain that the target fuses.

    Behind a convolution a batch norm vanishes into its weights. Behind a sum, a concatenation, a pool or an activation
    it stays a scale and an offset for each channel: one more pass over the map, often in float.
    """

    name: ClassVar[str] = "norm_not_folded"
    summary: ClassVar[str] = "a batch norm that does not fold into a layer"
    bad: ClassVar[str] = "x = self.conv(F.relu(self.norm(x)))"
    good: ClassVar[str] = "x = F.relu(self.norm(self.conv(x)))"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such norm."""
        for graph, node in context.computed_nodes():
            if node.op != "batch_norm" or node.attributes.get("training") is True or context.is_fused(node):
                continue
            maker = context.maker(node.tensors[0])
            behind = maker.op if maker else "an input"
            direct = maker is not None and maker.outputs[0] == node.tensors[0]
            why = "which has no weights to take it in"
            if maker is not None and graph.is_layer(maker):
                why = "whose result others read, too" if direct else "with a reshape or transpose between them"
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"batch_norm behind {behind}, {why}",
                allowed="batch norms directly behind the convolution that takes them in",
                suggestion="normalize directly behind the convolution (conv, norm, activation)",
            )


RULE = NormNotFolded
