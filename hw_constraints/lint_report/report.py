"""Findings with what the user has already said about them: ignored in the source, or known from a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bitwright.hw_constraints.finding import Finding, Severity, collapse
from bitwright.hw_constraints.lint_report.baseline import Baseline
from bitwright.hw_constraints.lint_report.suppressions import Suppressions
from bitwright.quant.graph import SourceLine


class Status(StrEnum):
    """Whether a finding counts."""

    NEW = "new"
    IGNORED = "ignored"  # by a comment on its line
    KNOWN = "known"  # it stands in the baseline


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One finding of a report.

    Attributes:
        finding: what was found.
        status: whether it counts.
        reason: what the user gave as the reason for ignoring it.
        calls: how many calls of the line it stands for (a loop, a module that is used again).
    """

    finding: Finding
    status: Status
    reason: str = ""
    calls: int = 1

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**self.finding.to_json(), "calls": self.calls, "status": self.status.value, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something about the user's own comments: a name that no rule has, or one that suppresses nothing."""

    text: str
    source: SourceLine

    def __str__(self) -> str:
        return f"{self.source}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class LintReport:
    """Everything that one run of the linter found.

    Attributes:
        entries: all findings, in their order.
        notices: about comments that do not do what their author meant.
    """

    entries: tuple[Entry, ...]
    notices: tuple[Notice, ...] = ()

    @property
    def new(self) -> tuple[Finding, ...]:
        """The findings that count."""
        return tuple(each.finding for each in self.entries if each.status is Status.NEW)

    @property
    def failed(self) -> bool:
        """Whether an error is among those that count."""
        return any(each.severity is Severity.ERROR for each in self.new)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"findings": [each.to_json() for each in self.entries], "notices": [str(each) for each in self.notices]}

    def count(self, status: Status) -> int:
        """How many findings have a status."""
        return sum(each.status is status for each in self.entries)


def review(
    findings: Sequence[Finding],
    *,
    files: Iterable[str] = (),
    baseline: Baseline | None = None,
    known_rules: Sequence[str] = (),
) -> LintReport:
    """Sorts findings into those that count and those that the user has dealt with.

    Args:
        findings: of all targets.
        files: the user's files that belong to the network; comments in them that suppress nothing are reported.
        baseline: old findings.
        known_rules: names that a comment can use.
    """
    sources = {finding.source.file for finding in findings if finding.source}
    suppressions = Suppressions.read(sorted({*files, *sources}))
    entries = []
    for finding, calls in collapse(findings):
        comment = suppressions.on(finding)
        known = baseline is not None and finding in baseline
        status = Status.IGNORED if comment else Status.KNOWN if known else Status.NEW
        entries.append(Entry(finding=finding, status=status, reason=comment.reason if comment else "", calls=calls))
    notices = tuple(Notice(text=text, source=source) for text, source in suppressions.complaints(known_rules))
    return LintReport(entries=tuple(entries), notices=notices)
