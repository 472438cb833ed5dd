"""`measure`: times files against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.command_group import CommandGroup
from bitwright.experiments.commands.artefacts import Runtimes, Threads
from bitwright.experiments.commands.recipes import Json


def files(
    files: Annotated[list[Path], typer.Argument(help="ONNX files; the first is what the others are compared with.")],
    runtime: Runtimes = None,
    threads: Threads = 1,
    seconds: Annotated[float, typer.Option(help="At most so long for each runtime.")] = 30.0,
    json: Json = False,
) -> int:
    """Time files against each other, interleaved in one process, with the ratio's 95 % interval."""
    from bitwright.experiments.model_commands import measure_files
    from bitwright.experiments.tables import print_json, print_table

    measurements = measure_files(files, runtime, threads=threads, seconds=seconds)
    if json:
        print_json({name: each.to_json() for name, each in measurements.items()})
        return 0
    for name, each in measurements.items():
        reference = next(iter(each.times_us))
        rows = [(file, str(each.latency(file)), str(each.ratio(file, reference))) for file in each.times_us]
        print_table(("file", "latency", f"against {reference}"), rows, title=name)
    return 0


COMMANDS = (
    CommandGroup(
        name="measure",
        help="Time files against each other: `bitwright measure A.onnx B.onnx`, with the options of `measure files`.",
        commands=(files,),
    ),
)
