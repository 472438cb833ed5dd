"""A network quantized after training as its recipe says: the one way for every stage and command that needs it so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bitwright.experiments.console import Console
from bitwright.experiments.group_sizes import require_whole_groups
from bitwright.experiments.recipe import Recipe
from bitwright.experiments.scheme_settings import require_overrides_select
from bitwright.hw_constraints.target import load_target
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme


def quantized_network(
    recipe: Recipe,
    captured: CapturedModel,
    scheme: QuantScheme,
    calibration: Iterable[Any],
    *,
    folder: Path | None = None,
    console: Console,
) -> QuantizedModel:
    """Quantizes by `quantize` of the recipe, with the progress of what takes its time.

    Args:
        recipe: says how ranges, biases and weights are chosen.
        captured: the network in float.
        scheme: the formats; see `scheme_settings.scheme_of`.
        calibration: batches of arguments.
        folder: where rounding keeps finished layers for a run that is killed.
        console: where the progress goes.

    Raises:
        InputError: an override that selects nothing, groups that do not come out even, nothing to quantize, no data,
            an unknown rounding or preparation, NaN or infinity on the way.
    """
    asked, samples = recipe.quantize, recipe.calibrate.samples
    require_overrides_select(recipe, captured.graph)
    require_whole_groups(captured, scheme, load_target(recipe.target))
    with console.track(*_steps(recipe, captured)) as advance:
        quantized = quantize(
            captured,
            scheme,
            calibration,
            bias_correction=asked.bias_correction,
            equalization=asked.equalization,
            preparations=asked.prepare,
            rounding=asked.rounding,
            folder=folder,
            progress=advance,
            rounding_progress=lambda layers: advance(samples + layers),
        )
    _require_some(quantized)
    return quantized


def _require_some(quantized: QuantizedModel) -> None:
    """Refuses a plan that leaves everything in float: what is asked for and the network have nothing in common."""
    planned = quantized.plan
    if not planned.quantized and not planned.weights:
        counts = Counter(reason for reason in planned.kept_float.values() if reason)
        why = counts.most_common(1)[0][0] if counts else "it has no operator with floating-point work"
        raise InputError(
            f"nothing in the network is quantized by scheme {planned.scheme.name!r}: {why}; name another target, or "
            "lift the overrides that keep layers in float"
        )


def _steps(recipe: Recipe, captured: CapturedModel) -> tuple[str, int]:
    """What takes its time, and in how many steps."""
    if recipe.quantize.rounding is None:
        return "calibrating, batches", recipe.calibrate.samples
    layers = sum(captured.graph.is_layer(node) for node in captured.graph.nodes)
    return "calibrating and rounding, batches and layers", recipe.calibrate.samples + layers
