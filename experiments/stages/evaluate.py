"""Scores the float network and the artefact, as its runtimes run it, on the same samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.experiments.record import Figure
from bitwright.experiments.results import Accuracy, EvaluateResult
from bitwright.experiments.stage import Context, Stage

if TYPE_CHECKING:
    from bitwright.experiments.evaluation import Comparison


def evaluate_model(context: Context) -> EvaluateResult:
    """Scores; the first runtime is the one that the verdict speaks about."""
    import torch

    from bitwright.experiments.evaluation import Score, evaluate
    from bitwright.experiments.metrics import UNITS
    from bitwright.experiments.runtime_model import RuntimeModel

    recipe, bench = context.recipe, context.bench
    asked, model = recipe.evaluate, context.model()
    with torch.no_grad():
        output = model(*bench.example(model))
    runtimes, note = bench.runtimes_or_simulator()
    artifact = context.file("quantize", "quantized.onnx")
    networks = [RuntimeModel(artifact, name, output) for name in runtimes]
    scores, comparisons = evaluate(bench, model, [model, *networks], console=context.console)
    unit = UNITS.get(asked.metric, "1") if asked.entry is None else "1"

    def accuracy(engine: str, score: Score) -> Accuracy:
        figures = {
            name: Figure(value=value, unit=unit, origin="measured", n=score.samples or None, source=engine)
            for name, value in score.metrics.items()
        }
        return Accuracy(engine=engine, metrics=figures)

    first = comparisons[0]
    sign = 1 if bench.higher_is_better else -1
    engines = [f"{network.engine}{note}" for network in networks]
    drop = sign * (scores[0].metrics[asked.metric] - scores[1].metrics[asked.metric])
    return EvaluateResult(
        metric=asked.metric,
        direction="higher" if bench.higher_is_better else "lower",
        reference=accuracy("PyTorch eager, float32", scores[0]),
        quantized=tuple(accuracy(engine, score) for engine, score in zip(engines, scores[1:], strict=True)),
        drop=Figure(
            value=drop,
            unit=unit,
            origin="measured",
            low=None if first.difference is None else -first.difference.high,
            high=None if first.difference is None else -first.difference.low,
            n=scores[1].samples or None,
            source=f"{engines[0]} against PyTorch eager, paired by sample",
        ),
        agreement=None if first.agreement_percent is None else _agreement(first, engines[0]),
        sqnr=Figure(
            value=first.sqnr_db,
            unit="dB",
            origin="measured",
            low=None if first.sqnr_interval is None else first.sqnr_interval.low,
            high=None if first.sqnr_interval is None else first.sqnr_interval.high,
            n=first.samples,
            source=engines[0],
        ),
    )


def _agreement(found: Comparison, engine: str) -> Figure:
    """With Wilson's interval where every sample decides once; the pixels of a picture do not decide alone."""
    from bitwright.experiments.comparable import wilson_interval

    value, count = found.agreement_percent, found.decisions
    assert value is not None
    _, low, high = wilson_interval(value, count) if count == found.samples else (None, None, None)
    return Figure(value=value, unit="%", origin="measured", low=low, high=high, n=count, source=engine)


STAGE = Stage(
    name="evaluate",
    run=evaluate_model,
    result=EvaluateResult,
    needs=("train", "quantize"),
    reads=(
        "model", "data", "target", "example_inputs", "evaluate.entry", "evaluate.metric", "evaluate.direction",
        "evaluate.samples", "evaluate.held_out", "prove.runtimes",
    ),
    reads_data=True,
    code=("bitwright.experiments.evaluation", "bitwright.experiments.metrics", "bitwright.experiments.runtime_model",
          "bitwright.hw_constraints.backends"),
    packages=("torch", "onnxruntime", "openvino"),
    reads_machine=True,
)  # fmt: skip
