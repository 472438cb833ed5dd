"""A tensor kept from one call to the next in a plain attribute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding
from bitwright.hw_constraints.lint_context import LintContext
from bitwright.hw_constraints.rules.source_control_flow import findings
from bitwright.hw_constraints.source_scan import Decision

_SAYS = {
    Decision.STATE: (
        "forward keeps a tensor in an attribute, which no file can hold",
        "self.register_buffer(name, tensor) and copy_ into it, or an argument and a result",
    )
}


class AttributeState:
    """Reads the user's `forward` functions for assignments to attributes, where capture failed.

    torch.export drops them, so that the second frame is computed as if it were the first. Bitwright refuses such a
    network; this names the lines. Buffers that are registered are carried along (rule carried_state).
    """

    name: ClassVar[str] = "attribute_state"
    summary: ClassVar[str] = "a tensor kept in a plain attribute from one call to the next"
    bad: ClassVar[str] = "self.memory = features"
    good: ClassVar[str] = "self.memory.copy_(features)  # a registered buffer"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such line."""
        yield from findings(self.name, context, _SAYS)


RULE = AttributeState
