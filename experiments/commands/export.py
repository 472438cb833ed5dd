"""`export`: a quantized network as another toolchain reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.commands.recipes import Json


def export(
    file: Annotated[
        Path, typer.Argument(help="An ONNX file with Q/DQ, or in float with NAME.encodings or NAME.calib.cache beside.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write, .onnx or .tflite; what belongs to it gets beside it.")],
    format: Annotated[str | None, typer.Option(help="An exporter (`bitwright ls exporters`).")] = None,
    target: Annotated[str | None, typer.Option(help="Or a target: its toolchain's format.")] = None,
    set: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of the exporter, such as version=0.6.1.")] = None,
    json: Json = False,
) -> int:
    """Write a quantized file, anyone's, as another toolchain reads it: Q/DQ, encodings, calibration cache, .tflite."""
    from bitwright.experiments.export_file import export_file, settings_of
    from bitwright.experiments.tables import print_json
    from bitwright.hw_constraints.target import load_target
    from bitwright.quant.errors import InputError

    if (format is None) == (target is None):
        raise InputError("give either --format (see `bitwright ls exporters`) or --target, whose format it is then")
    wanted = format if format is not None else load_target(target or "").artifact.format
    files = export_file(file, out, wanted, settings_of(set or ()))
    if json:
        print_json({"format": wanted, "files": [str(each) for each in files]})
    else:
        print("\n".join(map(str, files)))
    return 0


COMMANDS = (export,)
