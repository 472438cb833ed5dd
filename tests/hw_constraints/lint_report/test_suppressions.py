from pathlib import Path

import pytest

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_report.report import Status, review
from bitwright.quant.graph import SourceLine

RULES = ("dtype", "operator_support", "shape_limits")


def lint(tmp_path: Path, text: str, *found: tuple[str, int]) -> tuple[list[tuple[Status, str]], list[str]]:
    """The status and reason of findings (rule, line) in a file, and the notices without the file's name."""
    file = tmp_path / "net.py"
    file.write_text(text)
    findings = [
        Finding(
            rule=rule,
            severity=Severity.ERROR,
            node=f"n{i}",
            found="a",
            allowed="b",
            suggestion="c",
            source=SourceLine(str(file), line, "x"),
        )
        for i, (rule, line) in enumerate(found)
    ]
    report = review(findings, files=[str(file)], known_rules=RULES)
    states = [(each.status, each.reason) for each in report.entries]
    return states, [str(each).removeprefix(f"{file}:") for each in report.notices]


@pytest.mark.parametrize(
    ("comment", "status", "reason"),
    [
        ("# bitwright: ignore[dtype]", Status.IGNORED, ""),
        ("# bitwright: ignore[dtype]: measured", Status.IGNORED, "measured"),
        ("#bitwright:ignore[ dtype , shape_limits ] — runs once", Status.IGNORED, "runs once"),
        ("# bitwright: ignore: runs on the host anyway", Status.IGNORED, "runs on the host anyway"),
        ("# bitwright: ignore[shape_limits]", Status.NEW, ""),
        ("# bitwright: ignore", Status.NEW, ""),
        ("# bitwright: ignore[]", Status.NEW, ""),
        ("# nothing of ours", Status.NEW, ""),
    ],
)
def test_a_comment_on_the_line(tmp_path: Path, comment: str, status: Status, reason: str) -> None:
    states, _ = lint(tmp_path, f"x = f(x)  {comment}\ny = f(y)\n", ("dtype", 1), ("dtype", 2))
    assert states == [(status, reason), (Status.NEW, "")]


def test_a_comment_speaks_for_its_whole_statement(tmp_path: Path) -> None:
    text = "def f(x):\n    y = g(\n        x,\n        2,  # bitwright: ignore[dtype]\n    )\n    return y\n"
    states, _ = lint(tmp_path, text, ("dtype", 1), ("dtype", 2), ("dtype", 5), ("dtype", 6))
    assert [status for status, _ in states] == [Status.NEW, Status.IGNORED, Status.IGNORED, Status.NEW]


def test_text_in_a_string_is_no_comment(tmp_path: Path) -> None:
    states, notices = lint(tmp_path, 'x = "# bitwright: ignore[dtype]"\n', ("dtype", 1))
    assert states == [(Status.NEW, "")] and notices == []


def test_what_is_wrong_with_comments_is_said(tmp_path: Path) -> None:
    text = (
        "a = 1  # bitwright: ignore[dtyp]\n"
        "b = 1  # bitwright: ignore[dtype, shape_limits]\n"
        "c = 1  # bitwright: ignore\n"
        "d = 1  # bitwright: ignore: no longer needed\n"
    )
    _, notices = lint(tmp_path, text, ("dtype", 2))
    assert notices == [
        "1: ignore[dtyp]: there is no such rule (did you mean 'dtype'?)",
        "2: ignore[shape_limits] suppresses nothing; remove it",
        "3: ignore without rule names needs a reason: # bitwright: ignore: REASON",
        "4: ignore suppresses nothing; remove it",
    ]


@pytest.mark.parametrize("text", ["x = (  # bitwright: ignore[dtype]\n", "\x00# bitwright: ignore[dtype]\n", "é\n"])
def test_files_that_are_no_python_do_no_harm(tmp_path: Path, text: str) -> None:
    file = tmp_path / "net.py"
    file.write_bytes(text.encode("latin-1"))
    found = Finding(
        rule="dtype",
        severity=Severity.ERROR,
        node="n",
        found="a",
        allowed="b",
        suggestion="c",
        source=SourceLine(str(file), 1, "x"),
    )
    review([found], files=[str(file), "<ipython-input-1>", str(tmp_path)], known_rules=RULES)


def test_equal_findings_of_one_line_are_one_and_their_costs_add_up(tmp_path: Path) -> None:
    source = SourceLine(str(tmp_path / "net.py"), 3, "x = self.block(x)")
    calls = [
        Finding(
            rule="dtype",
            severity=Severity.ERROR,
            node=f"n{i}",
            found="a",
            allowed="b",
            suggestion="c",
            source=source,
            cost_us=cost,
        )
        for i, cost in enumerate((1.0, 2.5, None))
    ]
    (entry,) = review(calls).entries
    assert (entry.calls, entry.finding.cost_us, entry.finding.node) == (3, 3.5, "n0")
