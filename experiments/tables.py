"""Tables and JSON on stdout: colour on a terminal, aligned plain text in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_STYLES = {"error": "red", "failed": "red", "missing": "red", "float": "yellow", "ok": "green", "int8": "green"}


def print_json(value: Any) -> None:
    """One JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """A table."""
    if sys.stdout.isatty():
        _print_rich(heads, rows, title)
        return
    if title:
        print(title)
    everything = [list(heads), *map(list, rows)]
    widths = [max(len(row[column]) for row in everything) for column in range(len(heads))]
    for row in everything:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def figure_text(figure: Mapping[str, Any] | None) -> str:
    """A figure of a record for a table: `1.23 ms (measured)`, with its interval when it has one."""
    if figure is None:
        return "–"
    unit = "" if figure["unit"] == "1" else f" {figure['unit']}"
    interval = ""
    if figure.get("low") is not None and figure.get("high") is not None:
        interval = f" [{figure['low']:.4g}, {figure['high']:.4g}]"
    return f"{figure['value']:.4g}{interval}{unit} ({figure['origin']})"
