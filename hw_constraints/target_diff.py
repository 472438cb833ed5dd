"""What differs between two targets: the machine, the numerics, what becomes of each operator, and the limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bitwright.hw_constraints.operators import OPERATORS
from bitwright.hw_constraints.target_operators_page import is_listed, support_of
from bitwright.hw_constraints.target_page import chains_spelled, spec_cells
from bitwright.hw_constraints.target_page_parts import table
from bitwright.hw_constraints.target_types import Target

_ABSENT = "-"
_ELSEWHERE = ("numerics", "operators", "constraints", "shapes")  # statements that have rows of their own below


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One statement on which two targets differ; `-` where one of them says nothing."""

    section: str
    what: str
    left: str
    right: str


def differences(left: Target, right: Target) -> tuple[Difference, ...]:
    """Everything on which the two differ, by section."""
    sections = {"Toolchain": _toolchain, "Machine": _machine, "Numerics": _numerics}
    found = [
        Difference(section=section, what=what, left=a, right=b)
        for section, statements in sections.items()
        for what, a, b in _unequal(statements(left), statements(right))
    ]
    return (*found, *_operators(left, right), *_fusions(left, right), *_limits(left, right))


def describe_differences(left: Target, right: Target) -> str:
    """The differences as Markdown that also reads well as plain text."""
    found = differences(left, right)
    parts = [f"# {left.id} and {right.id}"]
    for section in dict.fromkeys(each.section for each in found):
        those = [each for each in found if each.section == section]
        if section in _SENTENCES:
            lines = [f"- {_SENTENCES[section](each, left, right)}" for each in those]
            parts.append("\n".join([f"## {section}", *lines]))
        else:
            rows = [(each.what, each.left, each.right) for each in those]
            parts.append(f"## {section}\n" + table(("what", left.id, right.id), rows))
    return "\n\n".join(parts if found else [*parts, "They say the same."]) + "\n"


def _unequal(left: dict[str, str], right: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    for what in dict.fromkeys([*left, *right]):
        a, b = left.get(what, _ABSENT), right.get(what, _ABSENT)
        if a != b:
            yield what, a, b


def _toolchain(target: Target) -> dict[str, str]:
    return {
        "serves": ", ".join(sorted(target.capabilities)),
        "artefact": target.artifact.format,
        "opset": str(target.artifact.opset or _ABSENT),
        "runtimes": ", ".join(target.artifact.runtimes) or _ABSENT,
        "open dimensions": target.shapes.dynamic,
        "partitions": "one" if target.operators.single_partition else "any number",
        "cost model": target.cost.kind.replace("_", " ") if target.cost else _ABSENT,
    }


def _machine(target: Target) -> dict[str, str]:
    units = {f"engines.{each.name}.count": str(each.count) for each in target.engines.values()}
    said = {
        path: f"{value}{'' if verified else ' (not verified)'}"
        for path, value, _, verified in target.statements()
        if path.split(".")[0] not in _ELSEWHERE
    }
    return units | said


def _numerics(target: Target) -> dict[str, str]:
    numerics = target.numerics
    said = {"activations": numerics.activations, "weights": numerics.weights}
    said |= {f"weights of {op}": specs for op, specs in numerics.operator_weights.items()}
    rows = {what: " or ".join(", ".join(spec_cells(spec)) for spec in specs) for what, specs in said.items()}
    floats = ", ".join(fmt.name for fmt in numerics.float_formats)
    outputs = "quantized" if numerics.quantize_outputs else "floating point"
    return rows | {"bias": numerics.bias, "floating point": floats or "none", "outputs": outputs}


def _limits(left: Target, right: Target) -> Iterator[Difference]:
    """One row for all operators that a condition binds on one side alone."""
    bound = (
        {(each.require.text, op) for each in target.constraints for op in each.operators} for target in (left, right)
    )
    ours, theirs = bound
    for texts, only_left in ((ours - theirs, True), (theirs - ours, False)):
        for text in sorted({text for text, _ in texts}):
            names = ", ".join(sorted(op for each, op in texts if each == text))
            yield Difference(
                section="Limits", what=names, left=text if only_left else _ABSENT, right=_ABSENT if only_left else text
            )


def _operators(left: Target, right: Target) -> Iterator[Difference]:
    """One row for all operators that change in the same way; those that neither side lists are `all others`."""
    groups: dict[tuple[str, str], list[str]] = {}
    others: set[tuple[str, str]] = set()
    for op in sorted(OPERATORS):
        fates = (str(support_of(left, op)), str(support_of(right, op)))
        if fates[0] == fates[1]:
            continue
        if is_listed(left, op) or is_listed(right, op):
            groups.setdefault(fates, []).append(op)
        else:
            others.add(fates)
    for (a, b), names in groups.items():
        yield Difference(section="Operators", what=", ".join(names), left=a, right=b)
    for a, b in sorted(others):
        yield Difference(section="Operators", what="all others", left=a, right=b)


def _fusions(left: Target, right: Target) -> Iterator[Difference]:
    ours, theirs = left.operators.fused_patterns, right.operators.fused_patterns
    for chain in chains_spelled(each for each in ours if each not in theirs):
        yield Difference(section="Fusions", what=chain, left="fused", right=_ABSENT)
    for chain in chains_spelled(each for each in theirs if each not in ours):
        yield Difference(section="Fusions", what=chain, left=_ABSENT, right="fused")


def _bound_alone(limit: Difference, left: Target, right: Target) -> str:
    owner, text = (right, limit.right) if limit.left == _ABSENT else (left, limit.left)
    return f"only {owner.id}, {limit.what}: `{text}`"


def _otherwise(fate: Difference, left: Target, right: Target) -> str:
    return f"{fate.what}: {left.id} {fate.left}, {right.id} {fate.right}"


# Sections whose entries are too long for columns.
_SENTENCES = {"Operators": _otherwise, "Limits": _bound_alone}
