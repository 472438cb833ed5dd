"""`quantize` and `prove`: one step of the chain on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.commands.recipes import Json, Out, Quiet

Model = Annotated[str, typer.Argument(help="package.module:function that returns the network, or a recipe.")]
TargetName = Annotated[str | None, typer.Option(help="A target (`bitwright targets`); a recipe brings its own.")]
Inputs = Annotated[
    list[str] | None, typer.Option("--input", help="Shape of an example input, such as 1x3x224x224; can be repeated.")
]
Runtimes = Annotated[list[str] | None, typer.Option("--runtime", help="A runtime; all that are here by default.")]
Threads = Annotated[int, typer.Option(help="Threads of each runtime.")]


def quantize(
    model: Model,
    target: TargetName = None,
    data: Annotated[str | None, typer.Option(help="package.module:function that returns the loader.")] = None,
    export: Annotated[
        str | None, typer.Option(help="Another exporter than the target's (`bitwright ls exporters`).")
    ] = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Calibrate, quantize and export a network; the rest of a recipe (prove, measure, …) is `bitwright run`."""
    from bitwright.experiments.model_commands import quantize_model
    from bitwright.experiments.tables import print_json

    record, folder = quantize_model(model, target, data, out, export=export, quiet=quiet)
    if json:
        print_json(record.model_dump(mode="json"))
    else:
        result = record.stages["quantize"].result
        print(f"{result['scheme']}\n{folder / 'stages' / 'quantize' / 'quantized.onnx'}")
        exported = record.stages["export"].result if "export" in record.stages else {}
        for name in exported.get("files", ()):
            print(folder / "stages" / "export" / name)
    return 0


def prove(
    file: Annotated[Path, typer.Argument(help="Any ONNX file with Q/DQ or integer operators.")],
    runtime: Runtimes = None,
    threads: Threads = 1,
    report: Annotated[
        list[Path] | None,
        typer.Option("--from", help="What another tool wrote of this file, on hardware that is not here; repeat."),
    ] = None,
    how: Annotated[
        str | None, typer.Option(help="Print the command that makes such a report: tensorrt, openvino, vela, …")
    ] = None,
    json: Json = False,
) -> int:
    """Say what a runtime really runs in int8, layer by layer, and why not. Exit code 1 unless all MACs are."""
    from bitwright.experiments.model_commands import print_how, prove_file
    from bitwright.experiments.tables import print_json, print_table

    if how is not None:
        return print_how(file, how, json=json)
    reports = prove_file(file, runtime, threads=threads, elsewhere=report or ())
    if json:
        print_json([each.to_json() for each in reports])
    else:
        for proof in reports:
            heads, rows = proof.table()
            print_table(heads, rows)
            print("\n".join([proof.summary(), *map(str, proof.warnings), ""]))
    return 0 if all(each.is_fully_low_precision for each in reports) else 1


COMMANDS = (quantize, prove)
