"""Writes the artefact that the target's own toolchain reads, where that is another file than the runtimes here do."""

from __future__ import annotations

from bitwright.experiments.recipe import Recipe
from bitwright.experiments.results import ExportResult
from bitwright.experiments.stage import Context, Stage
from bitwright.experiments.stages.quantize import ARTIFACT
from bitwright.hw_constraints.target import load_target
from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import EXPORTERS

NAME = "network"


def export_artifact(context: Context) -> ExportResult:
    """Writes `network.onnx` or `network.tflite`, and what stands beside it.

    What the target's format cannot say is a reason as long as the recipe does not ask for that format itself.
    """
    from bitwright.experiments.export_file import export_file

    asked = context.recipe.export
    format = asked.format or context.bench.target.artifact.format
    try:
        path = context.folder / f"{NAME}{EXPORTERS.load(format).suffix}"
        files = export_file(context.file("quantize", "quantized.onnx"), path, format, asked.settings)
    except InputError as error:
        if asked.format is not None:
            raise
        context.console.say(f"    note: no {format}: {error}")
        return ExportResult(format=format, reason=str(error))
    return ExportResult(format=format, files=tuple(file.name for file in files))


def _wanted(recipe: Recipe) -> bool:
    """Where the recipe asks for it, or the target reads another format for which there is an exporter."""
    if recipe.export.format is not None:
        return True
    format = load_target(recipe.target).artifact.format
    return format != ARTIFACT and format in EXPORTERS.names()


STAGE = Stage(
    name="export",
    run=export_artifact,
    result=ExportResult,
    needs=("quantize",),
    reads=("target", "export"),
    code=("bitwright.quant", "bitwright.experiments.export_file"),
    packages=("torch", "onnx"),
    wanted=_wanted,
)
