"""`parity`: where the deployed network stops being the network."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.commands.artefacts import Inputs
from bitwright.experiments.commands.recipes import Json, Quiet

_SIDES = "package.module:function, a recipe, a run's folder, an .onnx, .pt2, .tflite, .pte or .plan file"


class Level(StrEnum):
    """How far ONNX Runtime may optimise a file."""

    DISABLED = "disabled"
    BASIC = "basic"
    EXTENDED = "extended"
    ALL = "all"


class Halved(StrEnum):
    """What may be searched by halves."""

    LAYERS = "layers"
    PASSES = "passes"
    OPSETS = "opsets"
    VERSIONS = "versions"
    DATA = "data"
    FRAMES = "frames"


class Format(StrEnum):
    """How a report is printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


def parity(
    first: Annotated[str, typer.Argument(metavar="A", help=f"The reference: {_SIDES}.")],
    second: Annotated[
        str | None,
        typer.Argument(metavar="[B]", help="The same, or a dump (.npz, .safetensors); left out: A's own chain."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help=".npz or .npy, or package.module:function; a recipe brings its own.")
    ] = None,
    inputs: Inputs = None,
    samples: Annotated[int, typer.Option(help="Compare on so many inputs.")] = 2,
    level: Annotated[
        list[Level] | None, typer.Option(help="ONNX Runtime's optimisation levels; disabled and all by default.")
    ] = None,
    reference: Annotated[bool, typer.Option("--reference", help="Run files in onnx.reference, too (slow).")] = False,
    openvino: Annotated[bool, typer.Option("--openvino", help="Run files in OpenVINO, too.")] = False,
    tensorrt: Annotated[bool, typer.Option("--tensorrt", help="Run ONNX files in TensorRT, too.")] = False,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PYTHON",
            help="Another Python whose ONNX Runtime or ExecuTorch runs files, too: an interpreter, or a folder of "
            "packages.",
        ),
    ] = None,
    bisect: Annotated[
        Halved | None,
        typer.Option(
            help="Search by halves: layers (of large networks, in few runs), or behind the first break: our passes and "
            "ONNX Runtime's, newer opsets, versions of the runtime (--runtime), the part of the data; or frame by "
            "frame, for networks with memory."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write a reproducer of each break into this folder.")] = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Say which layer, in which step from your network to the device, first computes something else, and why.

    Each layer is judged on the reference's inputs, so that one fault does not hide the next. Exit code 1 on a break.
    """
    from bitwright.experiments.console import Console
    from bitwright.experiments.output_file import check_folder
    from bitwright.experiments.parity_command import Asked, compare_sides
    from bitwright.experiments.parity_search import Over
    from bitwright.experiments.parity_text import parity_json, parity_sarif, parity_text
    from bitwright.experiments.tables import print_json
    from bitwright.quant.errors import InputError

    check_folder("--out", out)
    if samples < 1:
        raise InputError(f"--samples = {samples}; at least 1 is needed")
    levels = tuple(each.value for each in level or ())
    asked = Asked(
        data=data,
        shapes=tuple(inputs or ()),
        samples=samples,
        levels=levels,
        reference=reference,
        openvino=openvino,
        tensorrt=tensorrt,
        runtimes=tuple(runtime or ()),
        out=out,
        bisect=Over(bisect.value) if bisect else None,
    )
    report = compare_sides(first, second, asked, console=Console(quiet=quiet))
    match Format.JSON if json else format:
        case Format.JSON:
            print_json(parity_json(report))
        case Format.SARIF:
            print_json(parity_sarif(report))
        case Format.TEXT:
            print(parity_text(report))
    return 0 if report.agrees else 1


COMMANDS = (parity,)
