"""`# bitwright: ignore[rule]` in the user's source: which findings a comment takes back.

    x = torch.linalg.inv(pose)  # bitwright: ignore[operator_support]: runs once, on the host
    x = self.act(self.conv(x))  # bitwright: ignore[unfused_activation, float_island]
    y = scores.topk(100)  # bitwright: ignore: measured, 0.1 ms

A comment speaks for the whole statement that it stands in. Without rule names it needs a reason.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitwright.hw_constraints.finding import Finding
from bitwright.quant.errors import suggestion
from bitwright.quant.graph import SourceLine

_COMMENT = re.compile(r"#\s*bitwright:\s*ignore(?P<names>\s*\[[^\]]*\])?\s*(?:[:—-]+\s*)?(?P<reason>[^#]*)")
_LARGEST = 10_000_000  # bytes; no source file that a person wrote is larger


@dataclass(frozen=True, kw_only=True)
class Comment:
    """One such comment.

    Attributes:
        source: its line.
        first: the first line of the statement that it stands in.
        last: the statement's last line.
        rules: the names that it lists; empty for all rules.
        reason: what the user wrote behind it.
    """

    source: SourceLine
    first: int
    last: int
    rules: tuple[str, ...]
    reason: str

    @property
    def is_valid(self) -> bool:
        """Whether it says what is ignored, or why."""
        return bool(self.rules or self.reason)

    def covers(self, finding: Finding) -> bool:
        """Whether a finding is meant."""
        if finding.source is None or not self.is_valid or not self.first <= finding.source.line <= self.last:
            return False
        return not self.rules or finding.rule in self.rules


@dataclass(frozen=True)
class Suppressions:
    """All comments of some files, and which of their names have been of use."""

    comments: dict[str, tuple[Comment, ...]]
    used: set[tuple[str, int, str]] = field(default_factory=set)

    @classmethod
    def read(cls, files: Iterable[str]) -> Suppressions:
        """Reads the files that there are; others (a notebook's cell, a generated function) have no comments."""
        return cls({file: comments for file in files if (comments := tuple(_comments(file)))})

    def on(self, finding: Finding) -> Comment | None:
        """The comment that takes a finding back."""
        file = finding.source.file if finding.source else ""
        for comment in self.comments.get(file, ()):
            if comment.covers(finding):
                self.used.add((file, comment.source.line, finding.rule if comment.rules else ""))
                return comment
        return None

    def complaints(self, known_rules: Sequence[str]) -> Iterator[tuple[str, SourceLine]]:
        """What is wrong with the comments: unknown names, missing reasons, and what suppressed nothing."""
        for file, comments in self.comments.items():
            for comment in comments:
                for text in self._wrong(file, comment, known_rules):
                    yield text, comment.source

    def _wrong(self, file: str, comment: Comment, known_rules: Sequence[str]) -> Iterator[str]:
        if not comment.is_valid:
            yield "ignore without rule names needs a reason: # bitwright: ignore: REASON"
        elif not comment.rules and (file, comment.source.line, "") not in self.used:
            yield "ignore suppresses nothing; remove it"
        for name in comment.rules:
            if known_rules and name not in known_rules:
                yield f"ignore[{name}]: there is no such rule{suggestion(name, known_rules)}"
            elif (file, comment.source.line, name) not in self.used:
                yield f"ignore[{name}] suppresses nothing; remove it"


def _comments(file: str) -> Iterator[Comment]:
    text = _text(file)
    if text is None or "bitwright:" not in text:
        return
    statements = _statements(text)
    lines = text.splitlines()
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):  # not Python, whatever its name
        return
    for token in tokens:
        match = _COMMENT.match(token.string) if token.type == tokenize.COMMENT else None
        if match is None:
            continue
        line = token.start[0]
        first, last = _statement_of(line, statements)
        names = (match["names"] or "").strip(" []")
        yield Comment(
            source=SourceLine(file, line, lines[line - 1].strip()),
            first=first,
            last=last,
            rules=tuple(name.strip() for name in names.split(",") if name.strip()),
            reason=match["reason"].strip(),
        )


def _text(file: str) -> str | None:
    path = Path(file)
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        with tokenize.open(file) as opened:
            return opened.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


def _statements(text: str) -> list[tuple[int, int]]:
    """First and last line of every statement that holds no others."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    return [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and not hasattr(node, "body")
    ]


def _statement_of(line: int, statements: list[tuple[int, int]]) -> tuple[int, int]:
    around = [(first, last) for first, last in statements if first <= line <= last]
    return min(around, key=lambda lines: lines[1] - lines[0]) if around else (line, line)
