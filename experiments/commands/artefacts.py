"""`quantize` and `prove`: one step of the chain on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.commands.recipes import Json, Out, Quiet
from bitwright.quant.errors import InputError

Model = Annotated[str, typer.Argument(help="package.module:function that returns the network, or a recipe.")]
TargetName = Annotated[str | None, typer.Option(help="A target (`bitwright targets`); a recipe brings its own.")]
Inputs = Annotated[
    list[str] | None, typer.Option("--input", help="Shape of an example input, such as 1x3x224x224; can be repeated.")
]
Runtimes = Annotated[list[str] | None, typer.Option("--runtime", help="A runtime; all that are here by default.")]
_MINUTES = 10.0
Threads = Annotated[int, typer.Option(help="Threads of each runtime.")]


def quantize(
    model: Model,
    target: TargetName = None,
    data: Annotated[str | None, typer.Option(help="package.module:function that returns the loader.")] = None,
    export: Annotated[
        str | None, typer.Option(help="Another exporter than the target's (`bitwright ls exporters`).")
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Try methods in order of cost until the accuracy gate holds. Can be resumed.")
    ] = False,
    max_drop: Annotated[float | None, typer.Option(help="--auto: the largest loss, in the metric's unit.")] = None,
    min_agreement: Annotated[
        float | None, typer.Option(help="--auto: % of decisions like the float network's.")
    ] = None,
    min_sqnr: Annotated[float | None, typer.Option(help="--auto: signal to noise of the results, dB.")] = None,
    minutes: Annotated[float | None, typer.Option(help=f"--auto: how long to try; {_MINUTES:g} by default.")] = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Calibrate, quantize and export a network; the rest of a recipe (prove, measure, …) is `bitwright run`.

    With --auto the exit code is 1 when nothing keeps the accuracy gate; the nearest is written then.
    """
    from bitwright.experiments.model_commands import quantize_model
    from bitwright.experiments.tables import print_json

    goal = {"max_drop": max_drop, "min_agreement": min_agreement, "min_sqnr": min_sqnr}
    if auto:
        return _quantize_auto(model, target, data, out, goal, export=export, minutes=minutes, quiet=quiet, json=json)
    for name, value in (*goal.items(), ("minutes", minutes)):
        if value is not None:
            raise InputError(f"--{name.replace('_', '-')} = {value:g} is for --auto; add it")
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


def _quantize_auto(
    model: str,
    target: str | None,
    data: str | None,
    out: Path | None,
    goal: dict[str, float | None],
    *,
    export: str | None,
    minutes: float | None,
    quiet: bool,
    json: bool,
) -> int:
    from bitwright.experiments.auto.command import Goal, quantize_model_auto
    from bitwright.experiments.console import Console
    from bitwright.experiments.summary import where_to_look
    from bitwright.experiments.tables import print_json

    console = Console(quiet=quiet or json)
    record, result, folder = quantize_model_auto(
        model,
        target,
        data,
        out,
        Goal(**goal),
        export=export,
        minutes=_MINUTES if minutes is None else minutes,
        console=console,
    )
    if json:
        print_json(record.model_dump(mode="json"))
    else:
        print(result.text)
        print(f"recipe    {folder / 'recipe.resolved.yaml'}")
        print("\n".join(where_to_look(record, folder)))
    return 0 if result.passed else 1


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
