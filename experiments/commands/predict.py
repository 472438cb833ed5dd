"""`predict`: a network's latency from a table of measured kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.commands.recipes import Json


def predict(
    file: Annotated[Path, typer.Argument(help="An ONNX file, in float or with Q/DQ.")],
    table: Annotated[
        Path, typer.Option(help="A latency table (`bitwright measure kernels`) of the runtime it is for.")
    ],
    target: Annotated[
        str | None,
        typer.Option(help="The target that says how int8 would be quantized; this processor's by default."),
    ] = None,
    json: Json = False,
) -> int:
    """Say how long a network will take, kernel by kernel, how sure that is, and whether int8 will be faster."""
    from bitwright.experiments.predict_command import predict_file, print_prediction
    from bitwright.experiments.tables import print_json

    found = predict_file(file, table, target)
    if json:
        print_json(found.to_json())
    else:
        print_prediction(found, file)
    return 0


COMMANDS = (predict,)
