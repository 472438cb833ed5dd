"""`lower`: the program that an accelerator would run, and what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.commands.artefacts import Inputs, TargetName
from bitwright.experiments.commands.recipes import Json


def lower(
    model: Annotated[
        str, typer.Argument(help="package.module:function that returns the network, a recipe, or an ONNX file.")
    ],
    target: TargetName = None,
    inputs: Inputs = None,
    explain: Annotated[str | None, typer.Option(metavar="LAYER", help="Tell one layer's story, pass by pass.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a timeline for ui.perfetto.dev.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the timeline: a .png, .svg or .pdf.")] = None,
    json: Json = False,
) -> int:
    """Say how a network would run on an accelerator: fused, placed, tiled and scheduled; cycles and bytes by layer."""
    import json as json_text

    from bitwright.experiments.lower_command import lower_model
    from bitwright.experiments.lower_text import print_lowered
    from bitwright.experiments.output_file import PICTURES, check_output, writing
    from bitwright.experiments.tables import print_json
    from bitwright.hw_constraints.cost.timeline import draw, perfetto
    from bitwright.hw_constraints.lower.explain import explain as story
    from bitwright.quant.errors import InputError

    check_output("--trace", trace)
    check_output("--picture", picture, PICTURES)
    found = lower_model(model, target, inputs or ())
    if found.cost is None and (trace or picture):
        raise InputError(found.no_cost)
    if found.cost is not None and trace is not None:
        with writing("--trace", trace):
            trace.write_text(json_text.dumps(perfetto(found.cost)), encoding="utf-8")
    if found.cost is not None and picture is not None:
        with writing("--picture", picture):
            draw(found.cost, picture)
    if explain is not None:
        print(story(found.program, explain))
    elif json:
        print_json(found.to_json())
    else:
        print_lowered(found)
    return 0


COMMANDS = (lower,)
