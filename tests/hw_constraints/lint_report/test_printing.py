"""Reports for a terminal and for GitHub."""

import re
from dataclasses import replace
from pathlib import Path

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_report.baseline import Baseline, fingerprint
from bitwright.hw_constraints.lint_report.github import github_annotations
from bitwright.hw_constraints.lint_report.report import LintReport, Notice, review
from bitwright.hw_constraints.lint_report.text import report_text
from bitwright.quant.graph import SourceLine

ERROR = Finding(
    rule="dtype",
    severity=Severity.ERROR,
    node="mul",
    found="mul makes float64: 100%, wrong",
    allowed="float32",
    suggestion="drop .double(),\nplease",
    source=SourceLine("models/a,b:c.py", 7, "y = x * w"),
    focus="*",
    target="h200",
    cost_us=12.34,
)
INFO = replace(ERROR, severity=Severity.INFO, source=None, node="$x", target="x86-vnni", cost_us=None)


def unescaped(text: str) -> str:
    return re.sub(r"%([0-9A-F]{2})", lambda match: chr(int(match.group(1), 16)), text)


def test_an_annotation_comes_back_as_it_went_in() -> None:
    first, second = github_annotations(review([ERROR, INFO])).splitlines()
    command, properties, message = re.fullmatch(r"::(\w+) (.*?)::(.*)", first).groups()  # type: ignore[union-attr]
    assert command == "error"
    given = dict(part.split("=") for part in properties.split(","))
    assert {key: unescaped(value) for key, value in given.items()} == {
        "file": "models/a,b:c.py", "line": "7", "title": "dtype (h200)"}  # fmt: skip
    assert unescaped(message) == ("mul makes float64: 100%, wrong\nallowed: float32\ninstead: drop .double(),\nplease")
    assert second.startswith("::notice title=dtype (x86-vnni)::$x: mul makes")


def test_notices_are_annotated_and_nothing_is_nothing() -> None:
    notice = Notice(text="ignore suppresses nothing; remove it", source=SourceLine("net.py", 3, ""))
    assert github_annotations(LintReport(entries=(), notices=(notice,))) == (
        "::notice file=net.py,line=3,title=bitwright::ignore suppresses nothing; remove it"
    )
    assert github_annotations(LintReport(entries=())) == ""


def test_text_counts_what_was_spared_and_names_targets_when_there_are_several() -> None:
    text = report_text(review([ERROR, INFO], baseline=Baseline(frozenset([fingerprint(INFO)]))))
    assert text.splitlines()[0] == "error[dtype] models/a,b:c.py:7 on h200"
    assert "cost:    12.3 us (modelled)" in text.splitlines()
    assert text.splitlines()[-1] == "1 error (1 known from the baseline)"
    assert report_text(review([ERROR])).splitlines()[0] == "error[dtype] models/a,b:c.py:7"
    assert report_text(LintReport(entries=())) == "no findings"


def test_several_calls_of_a_line_are_counted() -> None:
    assert report_text(review([ERROR, ERROR])).splitlines()[0] == "error[dtype] models/a,b:c.py:7, 2 calls"


def test_an_ignored_error_does_not_fail(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("y = x * w  # bitwright: ignore[dtype]\n")
    report = review([replace(ERROR, source=SourceLine(str(file), 1, "y = x * w"))], known_rules=["dtype"])
    assert not report.failed and report_text(report) == "no findings (1 ignored in the source)"
