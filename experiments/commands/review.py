"""`report` and `compare`: looking at runs that are done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.commands.recipes import Json

Run = Annotated[Path, typer.Argument(help="The folder of a run.")]


def report(run: Run, json: Json = False) -> int:
    """Write a run's report page and its TensorBoard folder again, and say where they are."""
    from bitwright.experiments.tables import print_json
    from bitwright.experiments.views import write_views

    page, board = write_views(run)
    if json:
        print_json({"report": str(page), "tensorboard": str(board)})
    else:
        print(f"report    {page}\ncurves    tensorboard --logdir {board}")
    return 0


def compare(
    first: Run,
    second: Annotated[Path, typer.Argument(help="Another run; its gates decide.")],
    json: Json = False,
) -> int:
    """Say what changed from one run to another. Exit code 1 when it is worse beyond noise where a gate is set."""
    from bitwright.experiments.compare import compare as compare_records
    from bitwright.experiments.comparison_text import comparison_json, print_comparison
    from bitwright.experiments.read_run import read_record
    from bitwright.experiments.tables import print_json

    comparison = compare_records(read_record(first), read_record(second))
    if json:
        print_json(comparison_json(comparison))
    else:
        print_comparison(comparison)
    return 1 if comparison.regressions else 0


COMMANDS = (report, compare)
