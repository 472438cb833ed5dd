"""Which operators a target runs, and within which limits: generated from its lists and predicates."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from bitwright.hw_constraints.operators import MULTIPLICATIONS, OPERATORS
from bitwright.hw_constraints.target_page_parts import Sources, table
from bitwright.hw_constraints.target_types import Otherwise, Target
from bitwright.quant.scheme import Granularity


class Support(StrEnum):
    """What becomes of an operator type."""

    QUANTIZED = "in low precision"
    SHARED = "passes codes on"
    DECOMPOSED = "taken apart"
    FLOAT = "in floating point"
    HOST = "on the host"
    REFUSED = "refused"


_OTHERWISE = {
    Otherwise.FLOAT: Support.FLOAT,
    Otherwise.HOST: Support.HOST,
    Otherwise.REFUSED: Support.REFUSED,
}


def support_of(target: Target, op: str) -> Support:
    """What the target does with one operator type, whatever its shapes."""
    operators = target.operators
    if op in operators.quantized:
        return Support.QUANTIZED
    if op in operators.shared_qparams:
        return Support.SHARED
    if op in operators.decomposed:
        return Support.DECOMPOSED
    return Support.REFUSED if op in operators.refused else _OTHERWISE[operators.others]


def describe_operators(target: Target) -> str:
    """The supported operators as Markdown that also reads well as plain text."""
    sources = Sources()
    mark = sources.mark(target.operators.source, verified=target.operators.verified)
    parts = [f"# Operators of {target.id}, version {target.version} {mark}"]
    for support in (Support.QUANTIZED, Support.SHARED, Support.DECOMPOSED, Support.REFUSED):
        names = sorted(op for op in OPERATORS if support_of(target, op) is support and is_listed(target, op))
        if names:
            parts.append(f"## {support[0].upper()}{support[1:]}\n{_listing(target, support, names)}")
    parts.append(f"All other operators: {_OTHERWISE[target.operators.others]}.")
    parts.append(_limits(target, sources))
    return "\n\n".join(part for part in [*parts, sources.listed()] if part) + "\n"


def is_listed(target: Target, op: str) -> bool:
    """Whether the target says something of this operator in particular."""
    operators = target.operators
    return any(
        op in names
        for names in (operators.quantized, operators.shared_qparams, operators.decomposed, operators.refused)
    )


def _listing(target: Target, support: Support, names: Iterable[str]) -> str:
    """A table of what there is something to say about, then the names of the rest."""
    rows = [
        (op, ", ".join(each.name for each in target.constraints_on(op)), _notes(target, support, op)) for op in names
    ]
    said = [row for row in rows if row[1] or row[2]]
    silent = [row[0] for row in rows if not (row[1] or row[2])]
    parts = [table(("operator", "limits", "notes"), said)] if said else []
    if silent:
        parts.append(f"{'Without further limits: ' if said else ''}{', '.join(silent)}")
    return "\n\n".join(parts)


def _notes(target: Target, support: Support, op: str) -> str:
    notes = []
    if support is Support.QUANTIZED and op in MULTIPLICATIONS:
        notes.append(f"weights {_weights(target, op)}")
    if support is Support.DECOMPOSED:
        notes.append(f"as {', '.join(target.operators.decomposed[op].parts)}")
    if support is Support.QUANTIZED:
        ends = sorted({chain[-1] for chain in target.operators.fused_patterns if chain[0] == op})
        notes += [f"fused with {', '.join(ends)}"] if ends else []
    if op in target.operators.codes_only:
        notes.append("writes codes only")
    return "; ".join(notes)


def _weights(target: Target, op: str) -> str:
    kinds = {Granularity.PER_CHANNEL: "per channel", Granularity.PER_TENSOR: "per tensor"}
    sizes: dict[str, list[int]] = {}  # of each format, in the order of the file
    for spec in target.numerics.weights_of(op):
        kind = kinds.get(spec.granularity, "in groups of")
        sizes.setdefault(f"{spec.format.name} {kind}", []).extend([spec.block_size] if spec.block_size else [])
    return " or ".join(f"{kind} {', '.join(map(str, found))}".rstrip() for kind, found in sizes.items())


def _limits(target: Target, sources: Sources) -> str:
    lines = []
    for each in target.constraints:
        mark = sources.mark(each.source, verified=each.verified)
        lines.append(f"- {each.name}, of {', '.join(sorted(each.operators))} {mark}")
        lines.append(f"  `{each.require}`")
        lines.append(f"  {each.severity} otherwise: {each.because}; instead: {each.suggestion}")
    return "## Limits\n" + "\n".join(lines) if lines else ""
