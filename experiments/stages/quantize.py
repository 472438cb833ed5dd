"""Calibrates, quantizes after training, and writes the artefact beside its float twin."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.experiments.recipe import Recipe
from bitwright.experiments.record import Figure
from bitwright.experiments.results import QuantizeResult
from bitwright.experiments.stage import Context, Stage
from bitwright.hw_constraints.target import Target
from bitwright.quant.export.exporter import EXPORTERS

if TYPE_CHECKING:
    import torch

    from bitwright.experiments.mixed_result import MixedResult
    from bitwright.quant.captured_model import CapturedModel
    from bitwright.quant.quantized_model import QuantizedModel
    from bitwright.quant.scheme import QuantScheme

ARTIFACT = "onnx_qdq"

# Enough for an SQNR that no longer moves by 0.1 dB, and one sample's activations are held at a time.
_QUALITY_SAMPLES = 8


def quantize_model(context: Context) -> QuantizeResult:
    """Writes `float.onnx`, `quantized.onnx` and their provenance."""
    from bitwright.experiments.advice import Adviser
    from bitwright.experiments.inputs import CountedSamples
    from bitwright.experiments.quantized_network import quantized_network
    from bitwright.experiments.scheme_settings import scheme_of, spelled
    from bitwright.experiments.tensor_quality import tensor_quality
    from bitwright.quant.calibrate import take
    from bitwright.quant.capture import capture
    from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
    from bitwright.quant.fit_scheme import fit_scheme

    recipe, bench, target = context.recipe, context.bench, context.bench.target
    model = context.model()
    captured = capture(model, bench.example(model))
    scheme, mixed = _mixed(context, model, captured, scheme_of(recipe, target))
    calibration = CountedSamples(bench.calibration(model))
    began = time.monotonic()
    quantized = quantized_network(
        recipe, captured, scheme, calibration, folder=context.run_folder / "rounding", console=context.console
    )
    fewer = calibration_notes(calibration.count, recipe.calibrate.samples)
    for note in fewer:
        context.console.say(f"    note: {note}")
    export_onnx_qdq(quantized, context.folder / "quantized.onnx")
    seconds = time.monotonic() - began
    reference = fit_scheme(captured, scheme)
    export_float(reference.graph, context.folder / "float.onnx")
    samples = take(reference, bench.calibration(model), _QUALITY_SAMPLES)
    return QuantizeResult(
        scheme=f"activations {spelled(scheme.activations)}; weights {spelled(scheme.weights)}",
        artifact=ARTIFACT,
        samples=calibration.count,
        tensors=tuple(
            tensor_quality(
                reference,
                quantized,
                samples,
                before=_plain(recipe, captured, scheme, bench.calibration(model)),
                advise=Adviser(recipe, target, quantized).on,
            )
        ),
        kept_float={name: reason for name, reason in quantized.plan.kept_float.items() if reason},
        float_bytes=size_of(context.folder / "float.onnx"),
        quantized_bytes=size_of(context.folder / "quantized.onnx"),
        calibrate_seconds=Figure(value=round(seconds, 3), unit="s", origin="measured", n=1, source="wall time"),
        notes=(
            *bench.data.notes,
            *calibration_notes(calibration.count, recipe.calibrate.samples),
            *rounding_notes(recipe.quantize.rounding, quantized),
            *rotation_notes(recipe.quantize.prepare, quantized),
            *artifact_notes(target),
        ),
        mixed=mixed,
    )


def _plain(
    recipe: Recipe, captured: CapturedModel, scheme: QuantScheme, calibration: Iterable[Any]
) -> QuantizedModel | None:
    """The same formats without the methods that the recipe asks for, to see what they gain; None where it has none."""
    from bitwright.quant.ptq import quantize

    asked = recipe.quantize
    if asked.rounding is None and not asked.equalization and not asked.prepare:
        return None
    return quantize(captured, scheme, calibration, bias_correction=False)


def _mixed(
    context: Context, model: torch.nn.Module, captured: CapturedModel, scheme: QuantScheme
) -> tuple[QuantScheme, MixedResult | None]:
    """The scheme with a format for every layer, where the recipe asks for that."""
    asked = context.recipe.quantize.mixed
    if asked is None:
        return scheme, None
    from bitwright.experiments.mixed_stage import mix_formats

    return mix_formats(context, asked, captured, scheme, lambda: context.bench.calibration(model))


def _tables(recipe: Recipe) -> tuple[str, ...]:
    """A budget of latency is kept by the first one."""
    return recipe.predict.tables[:1] if recipe.quantize.mixed is not None else ()


def size_of(path: Path) -> Figure:
    """The size of a file."""
    return Figure(value=path.stat().st_size, unit="bytes", origin="measured", source="file size")


def calibration_notes(count: int, asked: int) -> tuple[str, ...]:
    """That the data hold fewer samples than the recipe asks for, where they do."""
    if count >= asked:
        return ()
    return (f"calibrated with {count} samples, all that the data have; calibrate.samples = {asked} asks for more",)


def rounding_notes(rounding: str | None, quantized: QuantizedModel) -> tuple[str, ...]:
    """Which layers a rounding has left at nearest, and why."""
    from bitwright.quant.reconstruct.layers import find_layers

    if rounding is None:
        return ()
    nodes, (_, reasons) = quantized.captured.graph.by_name, find_layers(quantized.captured, quantized.plan)
    return tuple(
        f"{nodes[name].module_path or name} is rounded to nearest, not by {rounding!r}: {reason}"
        for name, reason in reasons.items()
    )


def rotation_notes(preparations: Sequence[str], quantized: QuantizedModel) -> tuple[str, ...]:
    """What rotations have left alone, and why; a line for each reason."""
    from bitwright.quant.preparations.rotate import left_alone

    asked = next((name for name in ("rotate", "learn_rotations") if name in preparations), None)
    if asked is None:
        return ()
    found = left_alone(quantized.captured)
    return tuple(
        f"{asked} leaves {places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''} as it is: {why}"
        for why, places in found.items()
    )


def artifact_notes(target: Target) -> tuple[str, ...]:
    """What keeps the written file from being the one that the target's toolchain reads."""
    wanted = target.artifact.format
    if wanted == ARTIFACT or wanted in EXPORTERS.names():  # the stage `export` writes the others
        return ()
    return (
        f"the toolchain of {target.id} reads {wanted}, which has no exporter here; {ARTIFACT} was written in its "
        "place: its numbers are the target's, its file format is not",
    )


STAGE = Stage(
    name="quantize",
    run=quantize_model,
    result=QuantizeResult,
    needs=("train",),
    reads=("model", "data", "example_inputs", "target", "calibrate", "quantize"),
    reads_data=True,
    reads_files=_tables,
    code=(
        "bitwright.quant",
        "bitwright.experiments.advice",
        "bitwright.experiments.calibration_data",
        "bitwright.experiments.group_sizes",
        "bitwright.experiments.quantized_network",
        "bitwright.experiments.scheme_settings",
        "bitwright.experiments.tensor_quality",
        "bitwright.experiments.mixed_formats",
        "bitwright.experiments.mixed_stage",
        "bitwright.nas.block_formats",
        "bitwright.nas.costs",
    ),
    packages=("torch", "onnx"),
)
