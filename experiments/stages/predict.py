"""Says, before anything is quantized, whether int8 will be faster on the runtimes whose latency tables are given."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.experiments.recipe import Recipe
from bitwright.experiments.record import Figure
from bitwright.experiments.results import PredictedGain, PredictResult
from bitwright.experiments.stage import Context, Stage
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.hw_constraints.predict.int8_gain import Int8Gain

_LOSERS = 5
_LEVEL = 0.95  # as all intervals of a record


def predict_gains(context: Context) -> PredictResult:
    """A network that cannot be predicted is a reason, not a failure; a table that cannot be read is one.

    Raises:
        InputError: a table is missing, damaged or empty.
    """
    from bitwright.experiments.scheme_settings import scheme_of
    from bitwright.hw_constraints.predict.before_compiling import gain_of_graph
    from bitwright.hw_constraints.predict.from_table import load_predictor
    from bitwright.quant.capture import CaptureError, capture
    from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
    from bitwright.quant.plan import plan

    tables = context.recipe.predict.tables
    predictors = [(table, load_predictor(Path(table), level=_LEVEL)) for table in tables]
    model, target = context.model(), context.bench.target
    try:
        graph = fold_batch_norm(capture(model, context.bench.example(model))).graph
    except CaptureError:
        reason = "the network was not captured; the findings say why"
        return PredictResult(gains=tuple(PredictedGain(table=table, reason=reason) for table in tables))
    decided, gains = plan(graph, scheme_of(context.recipe, target)), []
    for table, predictor in predictors:
        try:
            gains.append(_gain(table, gain_of_graph(predictor, graph, decided)))
        except InputError as error:
            gains.append(PredictedGain(table=table, where=predictor.where, reason=str(error)))
    for gain in gains:
        context.console.say(f"    {gain.text or gain.reason}")
    return PredictResult(gains=tuple(gains))


def _gain(table: str, found: Int8Gain) -> PredictedGain:
    source = f"latency table of {found.in_float.where}"
    return PredictedGain(
        table=table,
        where=found.in_float.where,
        expectation=found.expectation.value,
        ratio=Figure(value=found.ratio, unit="1", origin="modelled", source=source, **_bounds(found.low, found.high)),
        float_latency=Figure(
            value=found.in_float.us / 1e3,
            unit="ms",
            origin="modelled",
            source=source,
            **_bounds(found.in_float.low / 1e3, found.in_float.high / 1e3),
        ),
        losers=tuple(str(each) for each in found.losers[:_LOSERS]),
        text=str(found),
    )


def _bounds(low: float, high: float) -> dict[str, float]:
    """Nothing where a table with few whole networks promises no interval."""
    return {"low": low, "high": high} if math.isfinite(high) else {}


def _tables(recipe: Recipe) -> tuple[str, ...]:
    return recipe.predict.tables


def _wanted(recipe: Recipe) -> bool:
    return bool(recipe.predict.tables)


STAGE = Stage(
    name="predict",
    run=predict_gains,
    result=PredictResult,
    needs=("train",),
    reads_files=_tables,
    reads=("model", "data", "example_inputs", "target", "quantize", "predict"),
    code=("bitwright.hw_constraints", "bitwright.quant"),
    packages=("torch", "scipy"),
    wanted=_wanted,
)
