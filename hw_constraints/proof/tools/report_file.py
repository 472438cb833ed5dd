"""A file that a tool wrote: read once, as what its content shows it to be."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bitwright.quant.errors import InputError

_AGAIN = "it may be cut off: make it again"


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportFile:
    """One file; of `json`, `xml` and `rows` the one that fits it.

    Attributes:
        path: where it lies.
        json: its value, when it is JSON.
        xml: its root, when it is XML.
        rows: its lines as cells, when it is a table (comma or semicolon); empty lines are empty.
    """

    path: Path
    json: Any = None
    xml: ElementTree.Element | None = None
    rows: tuple[tuple[str, ...], ...] = ()

    def table(self, first: str) -> list[dict[str, str]]:
        """The lines below the heading that begins with `first`, by column; a heading may come again.

        Raises:
            InputError: a line has fewer cells than the heading, as the last one of a file that was cut off.
        """
        heads: tuple[str, ...] = ()
        found = []
        for number, row in enumerate(self.rows, start=1):
            if row and row[0] == first:
                heads = row
            elif heads and row:
                if len(row) < len(heads):
                    raise InputError(f"{self.path}:{number}: {len(row)} of {len(heads)} columns; {_AGAIN}")
                found.append(dict(zip(heads, row, strict=False)))
        return found

    def starts_table(self, *columns: str) -> bool:
        """Whether a heading with these columns, in this order, begins one of the first lines."""
        return any(row[: len(columns)] == columns for row in self.rows[:5])


def read_report_file(path: Path) -> ReportFile:
    """Reads a file.

    Raises:
        InputError: there is none, it is empty or no text, or its JSON or XML does not end.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".onnx":
        return ReportFile(path=path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file; expected a tool's JSON, XML or CSV") from error
    start = text.lstrip()[:1]
    if not start:
        raise InputError(f"{path}: is empty; make it again")
    if start in "{[":
        return ReportFile(path=path, json=_json(path, text))
    if start == "<":
        return ReportFile(path=path, xml=_xml(path, text))
    delimiter = ";" if text.splitlines()[0].count(";") > text.splitlines()[0].count(",") else ","
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    return ReportFile(path=path, rows=tuple(tuple(cell.strip() for cell in row) for row in rows))


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not readable as JSON ({error.msg}); {_AGAIN}") from error


def _xml(path: Path, text: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not readable as XML ({error}); {_AGAIN}") from error
