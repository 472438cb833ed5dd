"""Findings as GitHub's workflow commands, which a pull request shows beside the line.

Syntax and escapes: GitHub Actions documentation, "Workflow commands"; in actions/toolkit, packages/core/src/command.ts.
"""

from __future__ import annotations

from collections.abc import Iterator

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_report.baseline import relative
from bitwright.hw_constraints.lint_report.report import LintReport

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def github_annotations(report: LintReport) -> str:
    """One line for each finding that counts, and for each notice."""
    return "\n".join([*map(_annotation, report.new), *_notices(report)])


def _annotation(finding: Finding) -> str:
    properties = {"title": f"{finding.rule}{f' ({finding.target})' if finding.target else ''}"}
    if finding.source is not None:
        properties = {"file": relative(finding.source.file), "line": str(finding.source.line), **properties}
    message = f"{finding.found}\nallowed: {finding.allowed}\ninstead: {finding.suggestion}"
    if finding.source is None and finding.node:
        message = f"{finding.node}: {message}"
    return _command(_COMMANDS[finding.severity], properties, message)


def _notices(report: LintReport) -> Iterator[str]:
    for notice in report.notices:
        properties = {"file": relative(notice.source.file), "line": str(notice.source.line), "title": "bitwright"}
        yield _command("notice", properties, notice.text)


def _command(name: str, properties: dict[str, str], message: str) -> str:
    given = ",".join(f"{key}={_escape(value, ':,')}" for key, value in properties.items())
    return f"::{name} {given}::{_escape(message)}"


def _escape(text: str, also: str = "") -> str:
    """Percent signs and line ends, in properties colons and commas as well, by their codes."""
    for character in f"%\r\n{also}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text
