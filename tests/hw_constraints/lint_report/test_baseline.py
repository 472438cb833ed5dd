import json
from dataclasses import replace
from pathlib import Path

import pytest

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_report.baseline import fingerprint, read_baseline, write_baseline
from bitwright.hw_constraints.lint_report.report import Status, review
from bitwright.quant.errors import InputError
from bitwright.quant.graph import SourceLine

OLD = Finding(
    rule="channel_multiple",
    severity=Severity.ERROR,
    node="conv2d_3",
    found="conv2d makes 61 channels, stored as 64",
    allowed="multiples of 4",
    suggestion="64 channels",
    source=SourceLine("net.py", 12, "x = self.conv(x)"),
    focus="self.conv",
    target="h200",
)


@pytest.mark.parametrize(
    "change",
    [
        {"source": SourceLine("net.py", 99, "x = self.conv(x)")},
        {"found": "conv2d makes 57 channels, stored as 60"},
        {"node": "conv2d_7", "module_path": "blocks.3"},
        {"severity": Severity.WARNING, "suggestion": "other words", "cost_us": 1.0},
    ],
)
def test_what_a_fingerprint_survives(change: dict[str, object]) -> None:
    assert fingerprint(replace(OLD, **change)) == fingerprint(OLD)


@pytest.mark.parametrize(
    "change",
    [
        {"source": SourceLine("other.py", 12, "x = self.conv(x)")},
        {"source": SourceLine("net.py", 12, "x = self.conv2(x)")},
        {"rule": "dtype"},
        {"target": "x86-vnni"},
        {"found": "linear makes 61 channels, stored as 64"},
        {"source": None},
    ],
)
def test_what_makes_another_finding(change: dict[str, object]) -> None:
    assert fingerprint(replace(OLD, **change)) != fingerprint(OLD)


def test_the_place_of_the_checkout_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    absolute = replace(OLD, source=SourceLine(str(tmp_path / "net.py"), 12, "x = self.conv(x)"))
    assert fingerprint(absolute) == fingerprint(OLD)


def test_old_findings_are_known_and_new_ones_count(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    other = replace(OLD, rule="dtype")
    assert write_baseline(file, [OLD, OLD]) == 1
    report = review([OLD, other], baseline=read_baseline(file))
    assert [each.status for each in report.entries] == [Status.KNOWN, Status.NEW]
    assert report.failed and not review([OLD], baseline=read_baseline(file)).failed


def test_the_file_does_not_depend_on_the_order(tmp_path: Path) -> None:
    other = replace(OLD, rule="dtype", source=None, node="$x")
    write_baseline(tmp_path / "a.json", [OLD, other])
    write_baseline(tmp_path / "b.json", [other, OLD])
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
    assert json.loads((tmp_path / "a.json").read_text())["findings"][0]["where"] == "$x"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"old.json: not a baseline: Expecting .*; write it again with --write-baseline"),
        ("[" * 100_000, r"old.json: not a baseline: .*; write it again with --write-baseline"),
        ("[]", r"old.json: not a baseline of bitwright lint; write one with --write-baseline"),
        ('{"version": 1}', r"old.json: not a baseline of bitwright lint; write one with --write-baseline"),
        (
            '{"bitwright_lint_baseline": 9}',
            r"old.json: bitwright_lint_baseline = 9; this version reads 1; write it again",
        ),
        ('{"bitwright_lint_baseline": 1}', r"old.json: findings = None; expected a list"),
        (
            '{"bitwright_lint_baseline": 1, "findings": [{"fingerprint": "xyz"}]}',
            r"old.json: findings\[0\].fingerprint = 'xyz'; expected 16 hexadecimal digits",
        ),
        (
            '{"bitwright_lint_baseline": 1, "findings": [7]}',
            r"old.json: findings\[0\].fingerprint = 7; expected 16 hexadecimal digits",
        ),
    ],
)
def test_a_file_that_is_no_baseline(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "old.json"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_baseline(file)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"old.json: not a baseline: "):
        read_baseline(tmp_path / "old.json")


def test_a_missing_baseline_and_one_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.json: no such file; write it with --write-baseline"):
        read_baseline(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"b.json: cannot be written: No such file or directory"):
        write_baseline(tmp_path / "no" / "b.json", [OLD])
