"""SARIF logs, held to the standard's own schema."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint import summaries
from bitwright.hw_constraints.lint_report.baseline import Baseline, fingerprint
from bitwright.hw_constraints.lint_report.report import LintReport, review
from bitwright.hw_constraints.lint_report.sarif import sarif_log
from bitwright.quant.graph import SourceLine

SCHEMA = json.loads((Path(__file__).parent / "sarif-2.1.0-rtm.5.json").read_text())
TEXT = """import torch


def forward(self, x, pose):
    world = torch.linalg.inv(pose)
    x = self.conv(x)  # bitwright: ignore[dtype]: the sensor gives doubles
    return x, world  # bitwright: ignore[shape_limit]
"""


def finding(file: str, line: int, text: str, **given: Any) -> Finding:
    values = {"rule": "dtype", "severity": Severity.ERROR, "node": "conv2d", "found": "a", "allowed": "b",
              "suggestion": "c", "target": "h200", "source": SourceLine(file, line, text)}  # fmt: skip
    return Finding(**{**values, **given})


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LintReport:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a net.py").write_text(TEXT)
    file = str(tmp_path / "a net.py")
    lines = TEXT.splitlines()
    inverse = finding(file, 5, lines[4].strip(), rule="operator_support", focus="torch.linalg.inv", cost_us=1.5)
    findings = [
        inverse,
        finding(file, 6, lines[5].strip(), severity=Severity.WARNING, module_path="conv"),
        finding("/elsewhere/other.py", 3, "y = f(x)", severity=Severity.INFO),
        finding(file, 1, "", source=None, node="$pose"),
        finding(file, 5, "another text", rule="operator_support", focus="torch.linalg.inv"),
    ]
    return review(findings, baseline=Baseline(frozenset([fingerprint(inverse)])), known_rules=list(summaries()))


@pytest.fixture
def run(report: LintReport) -> dict[str, Any]:
    log = sarif_log(report, summaries(), with_baseline=True)
    Draft4Validator(SCHEMA).validate(log)
    (run,) = json.loads(json.dumps(log))["runs"]
    return run


def test_an_empty_report_is_valid() -> None:
    Draft4Validator(SCHEMA).validate(sarif_log(LintReport(entries=()), {}))


def test_the_schema_refuses_what_is_wrong(report: LintReport) -> None:
    log = sarif_log(report, summaries())
    log["runs"][0]["results"][0]["level"] = "fatal"
    assert [error.instance for error in Draft4Validator(SCHEMA).iter_errors(log)] == ["fatal"]


def test_results_refer_to_the_rules(run: dict[str, Any]) -> None:
    rules = run["tool"]["driver"]["rules"]
    assert len(rules) >= 30 and all(each["shortDescription"]["text"] for each in rules)
    assert [rules[each["ruleIndex"]]["id"] for each in run["results"]] == [each["ruleId"] for each in run["results"]]


def test_a_place_is_relative_with_columns_from_one(run: dict[str, Any]) -> None:
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "a%20net.py", "uriBaseId": "SRCROOT"}
    region = place["region"]
    assert TEXT.splitlines()[region["startLine"] - 1][region["startColumn"] - 1 : region["endColumn"] - 1] == (
        "torch.linalg.inv"
    )
    outside = run["results"][2]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert outside == {"uri": "file:///elsewhere/other.py"}


def test_a_line_that_has_changed_since_has_no_columns(run: dict[str, Any]) -> None:
    assert set(run["results"][4]["locations"][0]["physicalLocation"]["region"]) == {"startLine", "snippet"}


def test_without_a_line_the_name_stands_for_it(run: dict[str, Any]) -> None:
    (location,) = run["results"][3]["locations"]
    assert location == {"logicalLocations": [{"fullyQualifiedName": "$pose", "kind": "module"}]}


def test_levels_baseline_and_suppressions(run: dict[str, Any]) -> None:
    results = run["results"]
    assert [each["level"] for each in results] == ["error", "warning", "note", "error", "error"]
    assert [each["baselineState"] for each in results] == ["unchanged", *["new"] * 4]
    assert [each.get("suppressions") for each in results] == [
        None, [{"kind": "inSource", "justification": "the sensor gives doubles"}], None, None, None]  # fmt: skip
    assert results[0]["properties"]["cost_us"] == 1.5 and results[0]["properties"]["cost_origin"] == "modelled"
    assert results[1]["properties"]["cost_origin"] is None


def test_notices_are_notifications_of_the_tool(run: dict[str, Any]) -> None:
    (notification,) = run["invocations"][0]["toolExecutionNotifications"]
    assert notification["message"]["text"].startswith("ignore[shape_limit]: there is no such rule")
    assert notification["locations"][0]["physicalLocation"]["region"] == {"startLine": 7}
