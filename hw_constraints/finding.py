"""What the linter has to say about one place in the user's code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from bitwright.quant.graph import SourceLine


class Severity(StrEnum):
    """How much a broken constraint matters."""

    ERROR = "error"  # it does not run there, or gives wrong results
    WARNING = "warning"  # it runs, slower or less accurately
    INFO = "info"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something in a network that its accelerator does not want.

    Attributes:
        rule: the rule's name.
        severity: how much it matters.
        node: the name of the graph's node, an input's or a state's reference; empty when nothing was captured.
        found: what the network does there.
        allowed: what the accelerator accepts.
        suggestion: what to write instead.
        source: the line in the user's own code.
        focus: the part of that line that is meant, as the user wrote it; empty for the whole line.
        module_path: the module whose forward made the call.
        target: the id of the accelerator; filled in by `lint`.
        cost_us: how long the operator takes there, as the target's cost model reckons it; None where there is none.
    """

    rule: str
    severity: Severity
    node: str
    found: str
    allowed: str
    suggestion: str
    source: SourceLine | None = None
    focus: str = ""
    module_path: str = ""
    target: str = ""
    cost_us: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values; a cost says where it came from."""
        return {**asdict(self), "cost_origin": None if self.cost_us is None else "modelled"}


def collapse(findings: Iterable[Finding]) -> Iterator[tuple[Finding, int]]:
    """Findings that say the same about the same line as one, with their number; costs add up."""
    groups: dict[object, list[Finding]] = {}
    for each in findings:
        place: object = each.source or (each.node, each.module_path)
        key = (each.rule, each.target, each.severity, place, each.focus, each.found, each.allowed, each.suggestion)
        groups.setdefault(key, []).append(each)
    for group in groups.values():
        costs = [each.cost_us for each in group if each.cost_us is not None]
        yield replace(group[0], cost_us=sum(costs) if costs else None), len(group)
