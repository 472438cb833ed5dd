"""Findings in SARIF 2.1.0 (OASIS standard), which code-review tools and editors read."""

from __future__ import annotations

import importlib.metadata
import linecache
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_report.baseline import fingerprint, relative
from bitwright.hw_constraints.lint_report.report import Entry, LintReport, Notice, Status

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_ROOT = "SRCROOT"


def sarif_log(report: LintReport, rules: Mapping[str, str], *, with_baseline: bool = False) -> dict[str, Any]:
    """The report as one SARIF log with one run.

    Args:
        report: findings and notices.
        rules: the summary of each rule by its name, for all rules that ran.
        with_baseline: whether the findings were compared with a baseline.
    """
    names = list(rules)
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": _driver(rules)},
                "columnKind": "unicodeCodePoints",
                "originalUriBaseIds": {_ROOT: {"uri": f"{Path.cwd().as_uri()}/"}},
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "toolExecutionNotifications": [_notification(each) for each in report.notices],
                    }
                ],
                "results": [_result(each, names, with_baseline) for each in report.entries],
            }
        ],
    }


def _driver(rules: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": "bitwright",
        "version": importlib.metadata.version("bitwright"),
        "rules": [
            {
                "id": name,
                "shortDescription": {"text": summary},
                "help": {"text": f"bitwright lint --explain {name}"},
            }
            for name, summary in rules.items()
        ],
    }


def _result(entry: Entry, names: Sequence[str], with_baseline: bool) -> dict[str, Any]:
    finding = entry.finding
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": _message(finding)},
        "partialFingerprints": {"bitwrightFinding/v1": fingerprint(finding)},
        "locations": [_location(finding)],
        "properties": {
            "target": finding.target,
            "node": finding.node,
            "calls": entry.calls,
            "cost_us": finding.cost_us,
            "cost_origin": None if finding.cost_us is None else "modelled",
        },
    }
    if finding.rule in names:
        result["ruleIndex"] = names.index(finding.rule)
    if entry.status is Status.IGNORED:
        reason = {"justification": entry.reason} if entry.reason else {}
        result["suppressions"] = [{"kind": "inSource", **reason}]
    if with_baseline:
        result["baselineState"] = "unchanged" if entry.status is Status.KNOWN else "new"
    return result


def _message(finding: Finding) -> str:
    on = f" on {finding.target}" if finding.target else ""
    return f"{finding.found}{on}. Allowed: {finding.allowed}. Instead: {finding.suggestion}."


def _location(finding: Finding) -> dict[str, Any]:
    location: dict[str, Any] = {}
    if finding.source is not None:
        region: dict[str, Any] = {"startLine": max(finding.source.line, 1), **_columns(finding)}
        if finding.source.text:
            region["snippet"] = {"text": finding.source.text}
        location["physicalLocation"] = {"artifactLocation": _artifact(finding.source.file), "region": region}
    name = finding.module_path or finding.node
    if name:
        location["logicalLocations"] = [{"fullyQualifiedName": name, "kind": "module"}]
    return location


def _columns(finding: Finding) -> dict[str, int]:
    """Where on its line the meant part stands, counted from 1; nothing when the line is not what it was."""
    assert finding.source is not None
    line = linecache.getline(finding.source.file, finding.source.line).rstrip("\n")
    part = finding.focus or finding.source.text
    start = line.find(part) if line.strip() == finding.source.text else -1
    return {} if start < 0 or not part else {"startColumn": start + 1, "endColumn": start + 1 + len(part)}


def _artifact(file: str) -> dict[str, str]:
    path = relative(file)
    if Path(path).is_absolute():
        return {"uri": Path(path).as_uri()}
    return {"uri": quote(path), "uriBaseId": _ROOT}


def _notification(notice: Notice) -> dict[str, Any]:
    region = {"startLine": max(notice.source.line, 1)}
    place = {"artifactLocation": _artifact(notice.source.file), "region": region}
    return {"level": "note", "message": {"text": notice.text}, "locations": [{"physicalLocation": place}]}
