"""Trains on with the target's number formats in place, and compares with quantizing after training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitwright.experiments.qat_events import watched
from bitwright.experiments.qat_result import QATEpoch, QATResult, SparseWeights
from bitwright.experiments.record import Figure
from bitwright.experiments.stage import Context, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from bitwright.experiments.recipe import Recipe
    from bitwright.experiments.recipe_training import QATScheduleSection
    from bitwright.experiments.scores import Score
    from bitwright.experiments.training import Loss
    from bitwright.hw_constraints.figures import Interval
    from bitwright.qat import QATSchedule
    from bitwright.quant.quantized_model import QuantizedModel
    from bitwright.quant.scheme import QuantScheme


def train_quantized(context: Context) -> QATResult:
    """Writes `ptq.onnx` and `qat.onnx`, both in the formats of the recipe's `qat` section, and scores both.

    Channels leave first, where the recipe asks for that: both files are of the smaller network then.

    Raises:
        InputError: the network is not one graph; says what trains it.
    """
    from bitwright.quant.capture_failure import CaptureError
    from bitwright.quant.errors import InputError

    try:
        return _compared(context)
    except CaptureError as error:
        raise InputError(
            f"qat: {error}\n  a recipe trains and compares one file, which this network does not fit into; train it in "
            "your own loop: bitwright.qat.QATCallback trains its regions, and finish(path) writes a file for each"
        ) from error


def _compared(context: Context) -> QATResult:
    """Rounded and trained, beside each other."""
    import torch

    from bitwright.experiments.evaluation import evaluate
    from bitwright.experiments.metrics import UNITS
    from bitwright.experiments.qat_formats import learn_formats
    from bitwright.experiments.runtime_model import RuntimeModel
    from bitwright.experiments.scheme_settings import scheme_of, spelled
    from bitwright.experiments.smaller_network import check_steps, prune
    from bitwright.experiments.stages.quantize import size_of
    from bitwright.quant.export.onnx_qdq import export_onnx_qdq

    recipe, bench = context.recipe, context.bench
    check_steps(context)
    model, trained_on = context.model(), context.model()
    scheme = scheme_of(recipe, bench.target, section="qat")
    pruned = prune(context, trained_on, scheme, _loss(context, trained_on)[0])
    scheme, mixed = learn_formats(context, trained_on, scheme, _loss(context, trained_on)[0])
    after = _after_training(context, trained_on, scheme)
    export_onnx_qdq(after, context.folder / "ptq.onnx")
    trained, epochs, sparse = _during_training(context, trained_on, scheme, after)
    export_onnx_qdq(trained, context.folder / "qat.onnx")
    with torch.no_grad():
        output = model(*bench.example(model))
    runtimes, note = bench.runtimes_or_simulator()
    ptq, qat = (RuntimeModel(context.folder / f"{name}.onnx", runtimes[0], output) for name in ("ptq", "qat"))
    # PTQ comes first: the gain of training is paired against it.
    scores, comparisons = evaluate(bench, model, [ptq, qat, model], console=context.console)
    metric, higher = recipe.evaluate.metric, bench.higher_is_better
    unit = UNITS.get(metric, "1") if recipe.evaluate.entry is None else "1"
    engine = f"{qat.engine}{note}"
    return QATResult(
        scheme=f"activations {spelled(scheme.activations)}; weights {spelled(scheme.weights)}",
        metric=metric,
        direction="higher" if higher else "lower",
        engine=engine,
        epochs=epochs,
        reference=_figure(scores[2], metric, unit, "PyTorch eager, float32"),
        ptq=_figure(scores[0], metric, unit, engine),
        qat=_figure(scores[1], metric, unit, engine),
        gain=_gain(scores[0].metrics[metric], scores[1], metric, unit, engine, higher, comparisons[0].difference),
        pruned=pruned,
        sparse=sparse,
        mixed=mixed,
        size=size_of(context.folder / "qat.onnx"),
    )


def _after_training(context: Context, model: torch.nn.Module, scheme: QuantScheme) -> QuantizedModel:
    from bitwright.experiments.quantized_network import quantized_network
    from bitwright.quant.capture import capture

    recipe, bench = context.recipe, context.bench
    captured = capture(model, bench.example(model))
    calibration, folder = bench.calibration(model), context.run_folder / "rounding"
    return quantized_network(recipe, captured, scheme, calibration, folder=folder, console=context.console)


def _during_training(
    context: Context, model: torch.nn.Module, scheme: QuantScheme, after: QuantizedModel
) -> tuple[QuantizedModel, tuple[QATEpoch, ...], SparseWeights | None]:
    import torch

    from bitwright.experiments.inputs import arguments_of
    from bitwright.experiments.smaller_network import sparsity_of, zeros_of
    from bitwright.experiments.training import Schedule, fit
    from bitwright.qat import QATCallback
    from bitwright.quant.quantized_model import QuantizedModel

    recipe, bench = context.recipe, context.bench
    assert recipe.qat is not None
    loss_of, projections = _loss(context, model, features=recipe.qat.features)
    schedule = Schedule(epochs=recipe.qat.epochs, batch=recipe.qat.batch, lr=recipe.qat.lr)
    parameters = [*model.parameters(), *projections]
    optimizer = torch.optim.AdamW(parameters, lr=schedule.lr, weight_decay=schedule.weight_decay)
    sparsity = sparsity_of(context, model, optimizer)
    callback = QATCallback(
        model,
        optimizer,
        scheme=scheme,
        calibration=bench.calibration(model),
        arguments=lambda batch: batch,
        calibration_samples=recipe.calibrate.samples,
        schedule=_schedule(recipe.qat.schedule),
    )
    if recipe.qat.start == "quantized":
        callback.warm_start(after)
    read = arguments_of(model, recipe.data.inputs)
    epochs: list[QATEpoch] = []
    with watched(context, callback, sparsity) as after_step, _progress(context, schedule.epochs) as advance:
        training = fit(
            model,
            bench.data,
            read,
            schedule,
            seed=recipe.seed,
            optimizer=optimizer,
            after_step=after_step,
            loss_of=loss_of,
        )
        for done in training:
            epochs.append(QATEpoch(loss=done.loss, lr=done.lr, seconds=round(done.seconds, 3)))
            advance(len(epochs), f"loss {done.loss:.3f}")
    model.eval()
    report = None if sparsity is None else sparsity.finish()
    trained = callback.finish()
    assert isinstance(trained, QuantizedModel)  # what recipes train was captured whole to be quantized first
    return trained, tuple(epochs), None if report is None else zeros_of(report, trained)


def _progress(context: Context, epochs: int) -> Any:
    return context.console.track("quantization-aware training, epochs", epochs)


def _schedule(asked: QATScheduleSection) -> QATSchedule:
    from bitwright.qat import Freezing, QATSchedule, Ramp, Stage

    ramp = None if asked.dampening is None else Ramp(**asked.dampening.model_dump())
    freezing = asked.freezing
    plain = asked.model_dump(exclude={"stages", "dampening", "freezing"})
    return QATSchedule(
        **plain,
        stages=tuple(Stage(**stage.model_dump()) for stage in asked.stages),
        dampening=ramp,
        freezing=None
        if freezing is None
        else Freezing(threshold=Ramp(**freezing.threshold.model_dump()), momentum=freezing.momentum),
    )


def _loss(
    context: Context, model: torch.nn.Module, *, features: tuple[str, ...] = ()
) -> tuple[Loss, list[torch.nn.Parameter]]:
    """The labels' loss and, as a share, the teacher's, which is the float network; and parameters that it trains."""
    from bitwright.experiments.training import loss_by_labels

    recipe, data = context.recipe, context.bench.data
    assert recipe.qat is not None
    share = recipe.qat.distill
    if share == 0:
        return lambda logits, labels, _: loss_by_labels(logits, labels, data), []
    followed, parameters = _followed(context, model, features)

    def loss(logits: torch.Tensor, labels: torch.Tensor, arguments: tuple[Any, ...]) -> torch.Tensor:
        result = share * followed(logits, arguments)
        return result if share == 1 else result + (1 - share) * loss_by_labels(logits, labels, data)

    return loss, parameters


def _followed(
    context: Context, model: torch.nn.Module, features: tuple[str, ...]
) -> tuple[Callable[[torch.Tensor, tuple[Any, ...]], torch.Tensor], list[torch.nn.Parameter]]:
    """The loss of following the float network, of (logits, arguments)."""
    import torch

    from bitwright.experiments.metrics import first_tensor
    from bitwright.qat.distillation import Distiller, Feature, Logits, Term, distillation_loss

    task, teacher = context.bench.data.task, context.model()
    if features:
        terms: list[Term] = [Logits(), *(Feature(module=name) for name in features)]
        distiller = Distiller(model, context.bench.example(model), teacher=teacher, terms=terms)
        return distiller.loss, list(distiller.parameters())

    def follow(logits: torch.Tensor, arguments: tuple[Any, ...]) -> torch.Tensor:
        with torch.no_grad():
            wanted = first_tensor(teacher(*arguments))
        return distillation_loss(logits, wanted) if task is None else task.distil(logits, wanted)

    return follow, []


def _figure(score: Score, metric: str, unit: str, source: str) -> Figure:
    return Figure(value=score.metrics[metric], unit=unit, origin="measured", n=score.samples or None, source=source)


def _gain(
    ptq: float, qat: Score, metric: str, unit: str, engine: str, higher: bool, difference: Interval | None
) -> Figure:
    """How much better training made it; the interval is known where hits can be paired."""
    value = (qat.metrics[metric] - ptq) * (1 if higher else -1)
    return Figure(
        value=value,
        unit=unit,
        origin="measured",
        low=None if difference is None else difference.low,
        high=None if difference is None else difference.high,
        n=qat.samples or None,
        source=f"{engine}, paired by sample",
    )


def _tables(recipe: Recipe) -> tuple[str, ...]:
    """The first one tells what the network costs without a channel."""
    if recipe.qat is None:
        return ()
    pruned = recipe.qat.prune is not None and recipe.qat.prune.cost == "latency"
    mixed = recipe.qat.mixed is not None and recipe.qat.mixed.budget.latency is not None
    return recipe.predict.tables[:1] if pruned or mixed else ()


STAGE = Stage(
    name="qat",
    run=train_quantized,
    result=QATResult,
    needs=("train",),
    reads=(
        "model", "data", "target", "example_inputs", "evaluate.entry", "evaluate.metric", "evaluate.direction",
        "evaluate.samples", "calibrate", "quantize.bias_correction", "quantize.equalization", "quantize.rounding",
        "predict", "prove.runtimes", "qat",
    ),
    reads_data=True,
    reads_files=_tables,
    reads_machine=True,
    code=("bitwright.quant", "bitwright.qat", "bitwright.experiments.training", "bitwright.experiments.evaluation",
          "bitwright.experiments.runtime_model", "bitwright.experiments.quantized_network",
          "bitwright.experiments.scheme_settings", "bitwright.experiments.smaller_network",
          "bitwright.experiments.predicted_cost", "bitwright.experiments.qat_formats",
          "bitwright.experiments.mixed_formats"),
    packages=("torch", "onnxruntime", "openvino"),
    wanted=lambda recipe: recipe.qat is not None,
)  # fmt: skip
