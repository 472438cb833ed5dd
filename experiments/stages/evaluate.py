"""Scores the float network and the artefact, as its runtimes run it, on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bitwright.experiments.record import Figure
from bitwright.experiments.results import Accuracy, EvaluateResult
from bitwright.experiments.slice_result import SliceResult
from bitwright.experiments.stage import Context, Stage

if TYPE_CHECKING:
    from bitwright.experiments.scores import Comparison, Score

_REFERENCE = "PyTorch eager, float32"


def evaluate_model(context: Context) -> EvaluateResult:
    """Scores; the first runtime is the one that the verdict speaks about."""
    import torch

    from bitwright.experiments.calibration_data import calibration_slices
    from bitwright.experiments.evaluation import evaluate_slices
    from bitwright.experiments.runtime_model import RuntimeModel

    bench, model = context.bench, context.model()
    with torch.no_grad():
        output = model(*bench.example(model))
    runtimes, note = bench.runtimes_or_simulator()
    artifact = context.file("quantize", "quantized.onnx")
    networks = [RuntimeModel(artifact, name, output) for name in runtimes]
    found = evaluate_slices(bench, model, [model, *networks], console=context.console)
    figures = _Figures(context, tuple(f"{network.engine}{note}" for network in networks))
    calibrated = calibration_slices(bench, model)
    slices = tuple(
        figures.of_slice(name, calibrated[name], each.scores, each.comparisons[0])
        for name, each in found.slices.items()
    )
    for each in slices:
        if each.warning:
            context.console.say(f"    warning: {each.warning}")
    metrics = [
        figures.metrics(*each) for each in zip(("PyTorch eager, float32", *figures.engines), found.scores, strict=True)
    ]
    return EvaluateResult(
        metric=context.recipe.evaluate.metric,
        direction="higher" if bench.higher_is_better else "lower",
        reference=metrics[0],
        quantized=tuple(metrics[1:]),
        drop=figures.drop(found.scores, found.comparisons[0]),
        agreement=figures.agreement(found.comparisons[0]),
        sqnr=figures.sqnr(found.comparisons[0]),
        slices=slices,
    )


class _Figures:
    """Scores as figures of the record; what is compared is the first engine with the float network."""

    def __init__(self, context: Context, engines: tuple[str, ...]) -> None:
        from bitwright.experiments.metrics import UNITS

        self.recipe, self.engines = context.recipe, engines
        asked = self.recipe.evaluate
        self.unit = UNITS.get(asked.metric, "1") if asked.entry is None else "1"
        self.sign = 1 if context.bench.higher_is_better else -1

    def metrics(self, engine: str, score: Score) -> Accuracy:
        figures = {
            name: Figure(value=value, unit=self.unit, origin="measured", n=score.samples or None, source=engine)
            for name, value in score.metrics.items()
        }
        return Accuracy(engine=engine, metrics=figures)

    def drop(self, scores: Sequence[Score], first: Comparison) -> Figure:
        metric = self.recipe.evaluate.metric
        return Figure(
            value=self.sign * (scores[0].metrics[metric] - scores[1].metrics[metric]),
            unit=self.unit,
            origin="measured",
            low=None if first.difference is None else -first.difference.high,
            high=None if first.difference is None else -first.difference.low,
            n=scores[1].samples or None,
            source=f"{self.engines[0]} against PyTorch eager, paired by sample",
        )

    def agreement(self, found: Comparison) -> Figure | None:
        """With Wilson's interval where every sample decides once; the pixels of a picture do not decide alone."""
        from bitwright.experiments.comparable import wilson_interval

        value, count = found.agreement_percent, found.decisions
        if value is None:
            return None
        _, low, high = wilson_interval(value, count) if count == found.samples else (None, None, None)
        return Figure(
            value=value, unit="%", origin="measured", low=low, high=high, n=count, source=self.engines[0]
        )  # fmt: skip

    def sqnr(self, found: Comparison) -> Figure:
        interval = found.sqnr_interval
        low, high = (None, None) if interval is None else (interval.low, interval.high)
        return Figure(
            value=found.sqnr_db,
            unit="dB",
            origin="measured",
            low=low,
            high=high,
            n=found.samples,
            source=self.engines[0],
        )

    def of_slice(self, name: str, calibrated: int, scores: Sequence[Score], first: Comparison) -> SliceResult:
        slices, metric = self.recipe.data.slices, self.recipe.evaluate.metric
        least = slices.min_calibration if slices is not None else 0
        reference, quantized = (
            self.metrics(*each).metrics[metric] for each in zip((_REFERENCE, self.engines[0]), scores, strict=False)
        )
        covering = self.recipe.calibrate.select == "coverage"
        more = "ask for more by calibrate.samples" if covering else "choose by calibrate.select: coverage"
        few = (
            f"slice {name!r}: {calibrated or 'none'} of its samples calibrated, so its ranges may be cut off; add some "
            f"to the calibration data, or {more}"
        )
        return SliceResult(
            name=name,
            calibrated=calibrated,
            reference=reference,
            quantized=quantized,
            drop=self.drop(scores, first),
            agreement=self.agreement(first),
            sqnr=self.sqnr(first),
            warning=few if calibrated < least else "",
        )


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
    code=("bitwright.experiments.evaluation", "bitwright.experiments.scores", "bitwright.experiments.metrics",
          "bitwright.experiments.slices", "bitwright.experiments.held_out", "bitwright.experiments.runtime_model",
          "bitwright.hw_constraints.backends"),
    packages=("torch", "onnxruntime", "openvino"),
    reads_machine=True,
)  # fmt: skip
