"""`profile`: where the time of a network goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.commands.artefacts import Inputs, TargetName, Threads
from bitwright.experiments.commands.recipes import Json


def profile(
    model: Annotated[
        str, typer.Argument(help="An ONNX file; or package.module:function or a recipe, whose float network is taken.")
    ],
    runtime: Annotated[str | None, typer.Option(help="A runtime; the first that is here by default.")] = None,
    report: Annotated[
        list[Path] | None, typer.Option("--from", help="What another tool wrote of the file elsewhere; repeat.")
    ] = None,
    target: TargetName = None,
    table: Annotated[
        Path | None,
        typer.Option(help="A table of measured kernels (`bitwright measure kernels`), for predicted times."),
    ] = None,
    inputs: Inputs = None,
    threads: Threads = 1,
    seconds: Annotated[float, typer.Option(help="About so long for each part.")] = 10.0,
    beside: Annotated[
        list[str] | None, typer.Option(help="Time it beside another process, too: same (network) or memory; repeat.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Throughput at this batch size; repeat.")] = None,
    streams: Annotated[list[int] | None, typer.Option(help="Throughput of so many runs at once; repeat.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a timeline for ui.perfetto.dev.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Write bars by layer into this folder.")] = None,
    json: Json = False,
) -> int:
    """Measure each layer's time on a runtime, by your modules' names, beside modelled times; they add up to the run."""
    import json as json_text

    from bitwright.experiments.console import Console
    from bitwright.experiments.output_file import check_folder, check_output, writing
    from bitwright.experiments.profile_command import Asked, profile_model
    from bitwright.experiments.profile_text import print_profile
    from bitwright.experiments.tables import print_json

    check_output("--trace", trace)
    check_folder("--tensorboard", tensorboard)
    asked = Asked(
        runtime=runtime,
        reports=report or (),
        target=target,
        table=table,
        threads=threads,
        seconds=seconds,
        inputs=inputs or (),
        beside=beside or (),
        batches=batch or (),
        streams=streams or (),
    )
    found = profile_model(model, asked, console=Console())
    if trace is not None:
        with writing("--trace", trace):
            trace.write_text(json_text.dumps(found.trace), encoding="utf-8")
    if tensorboard is not None:
        from bitwright.experiments.tensorboard_profile import write_profile

        with writing("--tensorboard", tensorboard):
            write_profile(found, tensorboard)
    if json:
        print_json(found.to_json())
    else:
        print_profile(found)
    return 0


COMMANDS = (profile,)
