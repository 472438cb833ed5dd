"""`report` and `compare`: looking at runs that are done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.commands.artefacts import Runtimes, Threads
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
    first: Annotated[Path, typer.Argument(help="The folder of a run; or, with --measure, an ONNX file.")],
    second: Annotated[Path, typer.Argument(help="Another one, whose gates decide; or a file.")],
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure both artefacts again, in turns on this machine, and decide by that."),
    ] = False,
    margin: Annotated[float, typer.Option(help="With --measure: percent by which the second may be slower.")] = 2.0,
    points: Annotated[float, typer.Option(help="With --measure: points by which its metric may be lower.")] = 0.5,
    runtime: Runtimes = None,
    threads: Threads = 1,
    seconds: Annotated[float, typer.Option(help="With --measure: about so long for each runtime.")] = 60.0,
    json: Json = False,
) -> int:
    """Say what changed between two runs. Exit code 1: worse beyond noise where a gate is set, or proven so."""
    from bitwright.experiments.compare import compare as compare_records
    from bitwright.experiments.comparison_text import comparison_json, print_comparison, print_gate
    from bitwright.experiments.console import Console
    from bitwright.experiments.read_run import read_record
    from bitwright.experiments.regression_gate import measure_again
    from bitwright.experiments.tables import print_json
    from bitwright.quant.errors import InputError

    bare = [each for each in (first, second) if each.is_file()]
    if bare and not measure:
        raise InputError(f"{bare[0]}: is a file; runs are compared by their folders, files with --measure")
    # A bare file has no record; all there is to compare is what is measured.
    records = () if bare else (read_record(first), read_record(second))
    comparison = compare_records(*records) if records else None
    gate = None
    if measure:
        gate = measure_again(
            first,
            second,
            margin=margin / 100,
            points=points,
            runtimes=runtime or (),
            threads=threads,
            seconds=seconds,
            console=Console(),
        )
    if json:
        found = comparison_json(comparison) if comparison else {}
        print_json(found if gate is None else {**found, "measured_again": gate.to_json()})
    else:
        if comparison is not None:
            print_comparison(comparison, with_verdict=gate is None)
        if gate is not None:
            print_gate(gate, comparison.lasting_regressions if comparison else ())
    if gate is not None:
        return 1 if gate.regressions or (comparison and comparison.lasting_regressions) else 0
    return 1 if comparison and comparison.regressions else 0


COMMANDS = (report, compare)
