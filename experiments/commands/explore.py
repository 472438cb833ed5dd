"""`explore`: what one more MiB, GB/s or row of multipliers would buy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.commands.artefacts import Inputs
from bitwright.experiments.commands.recipes import Json, Quiet


def explore(
    models: Annotated[
        list[str],
        typer.Argument(help="package.module:function or a recipe, one or more; MODEL=2 counts twice."),
    ],
    target: Annotated[str, typer.Option(help="A target that serves cost.")],
    vary: Annotated[
        list[str], typer.Option(help="NAME=LOW..HIGH or NAME=VALUE,VALUE: memory.sram=1..64MiB, array=32..256.")
    ],
    inputs: Inputs = None,
    picture: Annotated[Path | None, typer.Option(help="Draw it: a .png, .svg or .pdf.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Vary figures of an accelerator one by one: how much faster would it run, and which layers hold it back."""
    from bitwright.experiments.explore_command import explore_models
    from bitwright.experiments.explore_picture import draw_exploration
    from bitwright.experiments.explore_text import print_exploration
    from bitwright.experiments.output_file import PICTURES, check_output, writing
    from bitwright.experiments.tables import print_json

    check_output("--picture", picture, PICTURES)
    found = explore_models(models, target, vary, inputs or (), quiet=quiet or json)
    if picture is not None:
        with writing("--picture", picture):
            draw_exploration(found, picture)
    if json:
        print_json(found.to_json())
    else:
        print_exploration(found)
    return 0


COMMANDS = (explore,)
