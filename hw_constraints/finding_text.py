"""Findings for a terminal: the user's line with the offending part underlined, and what to write instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bitwright.hw_constraints.finding import Finding, Severity, collapse


def format_findings(findings: Sequence[Finding]) -> str:
    """All findings as plain text and a last line that counts them; what is said about one line again is one block."""
    if not findings:
        return "no findings"
    several = len({each.target for each in findings}) > 1
    told = list(collapse(findings))
    blocks = [format_finding(each, calls=calls, show_target=several) for each, calls in told]
    return "\n\n".join([*blocks, summary([each for each, _ in told])])


def summary(findings: Sequence[Finding]) -> str:
    """`2 errors, 1 warning`."""
    counts = Counter(each.severity for each in findings)
    parts = [f"{counts[each]} {each}{'s' if counts[each] != 1 else ''}" for each in Severity if counts[each]]
    return ", ".join(parts) or "no findings"


def format_finding(finding: Finding, *, calls: int = 1, show_target: bool = False) -> str:
    """One finding.

    For example::

        error[operator_support] net.py:12 (neck.up) on h200
           12 | y = self.up(x)
              |     ^^^^^^^
        found:   conv_transpose3d
        allowed: …
        instead: …
        cost:    12.3 us (modelled)

    Args:
        finding: what was found.
        calls: how many calls of the line it stands for.
        show_target: whether to name the accelerator.
    """
    place = str(finding.source) if finding.source else finding.node
    module = f" ({finding.module_path})" if finding.module_path else ""
    target = f" on {finding.target}" if show_target and finding.target else ""
    times = f", {calls} calls" if calls > 1 else ""
    lines = [f"{finding.severity}[{finding.rule}]{f' {place}' if place else ''}{module}{target}{times}"]
    if finding.source and finding.source.text:
        gutter = f"{finding.source.line:>5} | "
        start, length = _span(finding.source.text, finding.focus)
        lines.append(f"{gutter}{finding.source.text}")
        lines.append(f"{' ' * (len(gutter) - 2)}| {' ' * start}{'^' * length}")
    lines.append(f"found:   {finding.found}")
    lines.append(f"allowed: {finding.allowed}")
    lines.append(f"instead: {finding.suggestion}")
    if finding.cost_us is not None:
        lines.append(f"cost:    {finding.cost_us:.3g} us (modelled)")
    return "\n".join(lines)


def _span(text: str, focus: str) -> tuple[int, int]:
    """Start and length of the part to underline; the whole line when the focus is not in it."""
    start = text.find(focus) if focus else -1
    return (start, len(focus)) if start >= 0 else (0, len(text))
