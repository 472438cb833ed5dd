"""A comparison of two runs for the terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bitwright.experiments.compare import Change, Comparison
from bitwright.experiments.figure_text import format_change, format_value
from bitwright.experiments.tables import print_table

if TYPE_CHECKING:
    from bitwright.experiments.regression_gate import Gate


def print_comparison(comparison: Comparison, *, with_verdict: bool = True) -> None:
    """Tables of what differs; the last line says whether it is worse where a gate is set, unless others decide."""
    for title, differences in (("Recipe", comparison.recipe), ("Versions", comparison.versions)):
        if differences:
            cells = [(each.key, _cell(each.before), _cell(each.after)) for each in differences]
            print_table(("key", "first", "second"), cells, title=title)
            print()
    if comparison.changes:
        rows = [_row(each) for each in comparison.changes]
        print_table(("quantity", "first", "second", "difference", "judgement", ""), rows, title="Figures")
        print()
    if comparison.refused:
        reasons = [(each.quantity, each.reason) for each in comparison.refused]
        print_table(("quantity", "why it does not compare"), reasons, title="Not compared")
        print()
    if not with_verdict:
        return
    if comparison.regressions:
        print(f"Worse beyond noise where a gate is set: {', '.join(comparison.regressions)}.")
    else:
        print("Nothing is worse beyond noise where a gate is set.")


def print_gate(gate: Gate, lasting: Sequence[str]) -> None:
    """What measuring again says, and the verdict.

    Args:
        gate: what was measured.
        lasting: what the records alone prove to be worse.
    """
    rows = [
        (f"latency, {name}", f"{each.old_us:.0f} µs", f"{each.new_us:.0f} µs", str(each))
        for name, each in gate.latency.items()
    ]
    if gate.quality is not None:
        old, new = f"{gate.quality.old:.2f} %", f"{gate.quality.new:.2f} %"
        rows.append((f"{gate.quality.metric}, {gate.quality.engine}", old, new, str(gate.quality)))
    print_table(("quantity", "first", "second", "second against first"), rows, title="Measured again, in turns")
    print()
    worse = (*gate.regressions, *lasting)
    print(f"Proven worse: {', '.join(worse)}." if worse else "Nothing is proven worse.")


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Plain values."""
    changes = [
        {
            **{key: getattr(each, key) for key in ("quantity", "low", "high", "has_gate", "note")},
            "judgement": each.judgement.value,
            "before": each.before.model_dump(mode="json"),
            "after": each.after.model_dump(mode="json"),
        }
        for each in comparison.changes
    ]
    return {
        "recipe": [asdict(each) for each in comparison.recipe],
        "versions": [asdict(each) for each in comparison.versions],
        "changes": changes,
        "refused": [asdict(each) for each in comparison.refused],
        "fallen_gates": list(comparison.fallen_gates),
        "regressions": list(comparison.regressions),
    }


def _cell(value: Any) -> str:
    return "–" if value is None else str(value)


def _row(change: Change) -> tuple[str, ...]:
    unit = change.after.unit
    difference = format_change(change.after.value - change.before.value, unit)
    if change.low is not None and change.high is not None:
        difference += f" [{format_change(change.low, '1')}, {format_change(change.high, '1')}]"
    values = (format_value(each.value, unit) for each in (change.before, change.after))
    note = change.note or ("gate" if change.has_gate else "")
    return (change.quantity, *values, difference, change.judgement.value, note)
