"""Trains the float network on the recipe's data."""

from __future__ import annotations

from bitwright.experiments.record import Figure
from bitwright.experiments.results import Epoch, TrainResult
from bitwright.experiments.stage import Context, Stage


def train(context: Context) -> TrainResult:
    """Trains and writes `weights.safetensors`."""
    from safetensors.torch import save_file

    from bitwright.experiments.evaluation import evaluate_model
    from bitwright.experiments.inputs import arguments_of
    from bitwright.experiments.metrics import UNITS
    from bitwright.experiments.sparse_blocks import sparse_blocks
    from bitwright.experiments.training import Schedule, adamw, fit

    recipe, bench = context.recipe, context.bench
    assert recipe.train is not None
    model = bench.new_model()
    read = arguments_of(model, recipe.data.inputs)
    schedule = Schedule(**recipe.train.model_dump(exclude={"sparsity"}))
    optimizer = adamw(model, schedule)
    zeros = sparse_blocks(model, optimizer, recipe.train.sparsity)
    after_step = None if zeros is None else zeros.on_step
    passes = fit(model, bench.data, read, schedule, seed=recipe.seed, optimizer=optimizer, after_step=after_step)
    epochs = []
    with context.console.track("training, epochs", recipe.train.epochs) as advance:
        for done in passes:
            epochs.append(Epoch(loss=done.loss, lr=done.lr, seconds=round(done.seconds, 3)))
            advance(len(epochs), f"loss {done.loss:.3f}")
    if zeros is not None:
        zeros.finish()
    score = evaluate_model(bench, model)
    # Copies, because tied weights share memory, which safetensors refuses.
    state = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    save_file(state, context.folder / "weights.safetensors")
    metric = recipe.evaluate.metric
    return TrainResult(
        parameters=sum(each.numel() for each in model.parameters()),
        epochs=tuple(epochs),
        metric=metric,
        final=Figure(
            value=score.metrics[metric],
            unit=UNITS.get(metric, "1"),
            origin="measured",
            n=score.samples or None,
            source="PyTorch eager, float32",
        ),
    )


STAGE = Stage(
    name="train",
    run=train,
    result=TrainResult,
    reads=("model", "data", "train", "evaluate.entry", "evaluate.metric", "evaluate.samples"),
    reads_data=True,
    code=(
        "bitwright.experiments.training", "bitwright.experiments.models", "bitwright.experiments.datasets",
        "bitwright.experiments.sparse_blocks", "bitwright.qat.sparsity",
    ),
    wanted=lambda recipe: recipe.train is not None,
)  # fmt: skip
