"""Which operator is quantized on which target: one table of all, generated from the targets' lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bitwright.hw_constraints.operators import OPERATORS
from bitwright.hw_constraints.target_operators_page import Support, is_listed, support_of
from bitwright.hw_constraints.target_page_parts import table
from bitwright.hw_constraints.target_types import Target

_SIGNS = {
    Support.QUANTIZED: "q",
    Support.SHARED: "=",
    Support.DECOMPOSED: "/",
    Support.FLOAT: "f",
    Support.HOST: "h",
    Support.REFUSED: "-",
}


def coverage(targets: Sequence[Target]) -> dict[str, dict[str, Support]]:
    """What each target does with each operator that at least one of them lists; by operator, then by target."""
    listed = sorted(op for op in OPERATORS if any(is_listed(target, op) for target in targets))
    return {op: {target.id: support_of(target, op) for target in targets} for op in listed}


def describe_coverage(targets: Sequence[Target]) -> str:
    """The table as Markdown that also reads well as plain text, a sign for each case; targets by number."""
    found: Mapping[str, Mapping[str, Support]] = coverage(targets)
    numbers = [str(number) for number in range(1, len(targets) + 1)]
    rows = [(op, *(_SIGNS[by_target[target.id]] for target in targets)) for op, by_target in found.items()]
    parts = [
        "# What becomes of each operator",
        "\n".join(f"- `{sign}` {support}" for support, sign in _SIGNS.items()),
        "\n".join(f"{number}. {target.id}" for number, target in zip(numbers, targets, strict=True)),
        table(("operator", *numbers), rows),
        "Limits on shapes and formats: `bitwright targets NAME --operators`.",
    ]
    return "\n\n".join(parts) + "\n"
