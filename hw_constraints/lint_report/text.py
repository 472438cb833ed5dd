"""A report for a terminal."""

from __future__ import annotations

from bitwright.hw_constraints.finding_text import format_finding, summary
from bitwright.hw_constraints.lint_report.report import Entry, LintReport, Status


def report_text(report: LintReport) -> str:
    """The findings that count, one block each, the notices, and a last line that counts everything."""
    several = len({each.finding.target for each in report.entries}) > 1
    blocks = [_block(each, several) for each in report.entries if each.status is Status.NEW]
    blocks += [f"note: {notice}" for notice in report.notices]
    spared = [
        f"{count} {what}"
        for status, what in ((Status.IGNORED, "ignored in the source"), (Status.KNOWN, "known from the baseline"))
        if (count := report.count(status))
    ]
    last = summary(report.new) + (f" ({', '.join(spared)})" if spared else "")
    return "\n\n".join([*blocks, last])


def _block(entry: Entry, several: bool) -> str:
    return format_finding(entry.finding, calls=entry.calls, show_target=several)
