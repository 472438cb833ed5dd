"""`autotune`: int8 where a runtime gains by it, float where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.commands.artefacts import TargetName, Threads
from bitwright.experiments.commands.recipes import Json, Quiet


def autotune(
    model: Annotated[
        str, typer.Argument(help="package.module:function or a recipe; or an ONNX file, in float or with Q/DQ.")
    ],
    target: TargetName = None,
    runtime: Annotated[str | None, typer.Option(help="The runtime to tune for; the first that is here.")] = None,
    data: Annotated[
        str | None, typer.Option(help="package.module:function that returns the loader; for a file also .npz or .npy.")
    ] = None,
    budget: Annotated[int, typer.Option(help="Files to try at most.")] = 40,
    minutes: Annotated[float, typer.Option(help="Minutes to measure at most.")] = 10.0,
    threads: Threads = 1,
    table: Annotated[
        Path | None,
        typer.Option(help="Latencies of kernels (`measure kernels`): promising files are tried first."),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another tool's ONNX file of the same network: the artefact is not slower than it either."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the record and the artefact.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Choose where Q/DQ go by measured latency and accuracy; never slower than float or full int8. Can be resumed."""
    from bitwright.experiments.autotune_command import Asked, autotune_model
    from bitwright.experiments.autotune_text import print_tuned
    from bitwright.experiments.console import Console
    from bitwright.experiments.tables import print_json

    asked = Asked(
        model=model,
        target=target,
        runtime=runtime,
        data=data,
        budget=budget,
        minutes=minutes,
        threads=threads,
        table=table,
        against=tuple(against or ()),
        out=out,
    )
    tuned = autotune_model(asked, console=Console(quiet=quiet or json))
    if json:
        print_json({**tuned.to_json(), "file": str(tuned.file)})
    else:
        print_tuned(tuned)
    return 0


COMMANDS = (autotune,)
