"""A file of old findings, so that a project can start with the linter and hear about new ones only.

A finding is recognised by what it says and where the code says it, not by its line's number: rule, target, file, the
line's text and the part of it that is meant. Numbers within the finding (sizes, counts) may change, too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.finding import Finding
from bitwright.quant.errors import InputError

VERSION = 1
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


def fingerprint(finding: Finding) -> str:
    """What stays of a finding when lines are inserted above it: 16 hexadecimal digits."""
    source = finding.source
    place = (relative(source.file), source.text, finding.focus) if source else (finding.node, "", "")
    said = _NUMBER.sub("#", finding.found)
    text = "\0".join((finding.rule, finding.target, *place, said))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def relative(file: str) -> str:
    """A path as it reads from the working directory, with forward slashes; unchanged when it lies elsewhere."""
    path = Path(file)
    if not path.is_absolute():
        return path.as_posix()
    here = Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


@dataclass(frozen=True)
class Baseline:
    """The fingerprints of old findings."""

    fingerprints: frozenset[str]

    def __contains__(self, finding: object) -> bool:
        return isinstance(finding, Finding) and fingerprint(finding) in self.fingerprints


def read_baseline(file: Path) -> Baseline:
    """Reads what `write_baseline` wrote.

    Raises:
        InputError: the file is missing, no baseline, or of another version.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; write it with --write-baseline")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{file}: not a baseline: {error}; write it again with --write-baseline") from None
    if not isinstance(content, dict) or "bitwright_lint_baseline" not in content:
        raise InputError(f"{file}: not a baseline of bitwright lint; write one with --write-baseline")
    version = content["bitwright_lint_baseline"]
    if version != VERSION:
        raise InputError(
            f"{file}: bitwright_lint_baseline = {version!r}; this version reads {VERSION}; "
            "write it again with --write-baseline"
        )
    return Baseline(frozenset(_fingerprints(file, content.get("findings"))))


def write_baseline(file: Path, findings: Iterable[Finding]) -> int:
    """Writes the findings as a baseline, in an order that does not depend on the run; returns how many it holds.

    Raises:
        InputError: the file cannot be written.
    """
    entries = {
        fingerprint(each): {
            "fingerprint": fingerprint(each),
            "rule": each.rule,
            "target": each.target,
            "where": relative(each.source.file) if each.source else each.node,
            "text": each.source.text if each.source else "",
        }
        for each in findings
    }
    ordered = sorted(entries.values(), key=lambda entry: (entry["where"], entry["rule"], entry["fingerprint"]))
    content = {"bitwright_lint_baseline": VERSION, "findings": ordered}
    try:
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: cannot be written: {error.strerror}") from None
    return len(ordered)


def _fingerprints(file: Path, findings: Any) -> Iterable[str]:
    if not isinstance(findings, list):
        raise InputError(f"{file}: findings = {findings!r}; expected a list")
    for position, entry in enumerate(findings):
        value = entry.get("fingerprint") if isinstance(entry, dict) else entry
        if not isinstance(value, str) or not _FINGERPRINT.fullmatch(value):
            raise InputError(f"{file}: findings[{position}].fingerprint = {value!r}; expected 16 hexadecimal digits")
        yield value
