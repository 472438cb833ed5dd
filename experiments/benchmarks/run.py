"""Runs one row: `python -m bitwright.experiments.benchmarks ROW [data.root=FOLDER]`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bitwright.experiments.benchmarks import places, records, results_page
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Record
from bitwright.quant.errors import InputError

ROWS = Path(__file__).parent / "rows"
OPTIONS = ("data.root",)


def row_names() -> list[str]:
    """Every row, from the files in `rows/`."""
    return sorted(file.stem for file in ROWS.glob("[!_]*.py"))


def run_row(name: str, bench: Bench) -> list[Record]:
    """Runs a row, writes its records and the page.

    Raises:
        InputError: there is no such row; the message lists those there are. Or the row lacks a peer or data.
    """
    if name not in row_names():
        raise InputError(f"unknown row {name!r}; there are: {', '.join(row_names())}")
    row = importlib.import_module(f"bitwright.experiments.benchmarks.rows.{name}")
    found: list[Record] = row.run(bench)
    records.write(name, found)
    results_page.write_page()
    return found


def show(found: Sequence[Record], console: Console) -> None:
    """Prints the tables beside the figures, then the figures."""
    shown: list[object] = []
    for entry in found:
        if entry.table and entry.table not in shown:
            shown.append(entry.table)
            console.print(_as_table(entry.table))
    for entry in found:
        spread = f" [{entry.spread[0]:.4g}, {entry.spread[1]:.4g}]" if entry.spread else ""
        state = {True: "holds", False: "MISSED", None: "printed"}[entry.holds]
        figure = f"{entry.row}: {entry.value:.4g}{spread} {entry.unit}"
        console.print(f"{figure} · {entry.reach or 'nothing to reach'} · {state} (n={entry.n})", markup=False)


def _as_table(lines: Sequence[object]) -> Table:
    rows = [line for line in lines if isinstance(line, dict)]
    columns = list(dict.fromkeys(column for line in rows for column in line))
    table = Table(*columns)
    for line in rows:
        table.add_row(*(_cell(line.get(column)) for column in columns))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when every figure holds, 1 when one is missed, 2 for misuse."""
    parser = argparse.ArgumentParser(prog="python -m bitwright.experiments.benchmarks", description=__doc__)
    parser.add_argument("row", metavar="ROW", help=f"one of: {', '.join(row_names())}")
    parser.add_argument("options", nargs="*", metavar="key=value", help=f"keys: {', '.join(OPTIONS)}")
    given = parser.parse_args(arguments)
    options = dict(item.partition("=")[::2] for item in given.options)
    if unknown := sorted(set(options) - set(OPTIONS)):
        print(f"unknown option {unknown[0]!r}; there are: {', '.join(OPTIONS)}", file=sys.stderr)
        return 2
    try:
        bench = Bench(data_root=options.get("data.root"), home=places.peers_home(), cache=places.cache())
        found = run_row(given.row, bench)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    show(found, Console())
    return 1 if any(entry.holds is False for entry in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
