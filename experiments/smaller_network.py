"""What a recipe's training in low precision makes smaller: channels leave before it, zeros stay through it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bitwright.experiments.qat_result import PrunedChannels, SparseWeights
from bitwright.experiments.record import Figure
from bitwright.experiments.results import Epoch
from bitwright.experiments.stage import Context
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import torch

    from bitwright.experiments.training import Loss
    from bitwright.qat.sparsity import Sparsity, SparsityReport
    from bitwright.quant.quantized_model import QuantizedModel
    from bitwright.quant.scheme import QuantScheme


def check_steps(context: Context) -> None:
    """Refuses a pattern that would not be complete when the training ends, before anything is trained.

    Raises:
        InputError: names the key and how many steps there are.
    """
    asked = context.recipe.qat
    assert asked is not None
    steps = asked.epochs * steps_of_epoch(context, asked.batch)
    if asked.sparsity is not None and asked.sparsity.end > steps:
        raise InputError(
            f"qat.sparsity.end = {asked.sparsity.end}; the training has {steps} steps ({asked.epochs} epochs of "
            f"{steps // asked.epochs}), and the pattern must be complete by then"
        )


def steps_of_epoch(context: Context, batch: int) -> int:
    """How many steps a pass over the training data takes."""
    from bitwright.experiments.datasets import Split

    return math.ceil((context.bench.data.splits.get(Split.TRAIN) or 0) / batch)


def prune(context: Context, model: torch.nn.Module, scheme: QuantScheme, loss_of: Loss) -> PrunedChannels | None:
    """Takes channels out of a float network, in place, while it trains; None where the recipe does not ask for it.

    Args:
        context: of the stage.
        model: the trained network.
        scheme: what it will be quantized by, which decides what it will cost.
        loss_of: see `training.fit`.

    Raises:
        InputError: nothing can leave, or the target is out of reach: says why.
    """
    import torch

    from bitwright.experiments.inputs import arguments_of
    from bitwright.experiments.predicted_cost import shape_cost
    from bitwright.experiments.training import Schedule, fit
    from bitwright.qat.sparsity import Pruning

    recipe, bench = context.recipe, context.bench
    assert recipe.qat is not None
    asked, batch = recipe.qat.prune, recipe.qat.batch
    if asked is None:
        return None
    cost = shape_cost(asked.cost, recipe.predict.tables, bench.target, scheme)
    schedule = Schedule(epochs=asked.epochs, batch=batch, lr=asked.lr)
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay)
    pruning = Pruning(
        model,
        optimizer,
        example=bench.example(model),
        cost=cost.of,
        target=asked.target,
        end=max(1, round((1 - asked.recover) * asked.epochs * steps_of_epoch(context, batch))),
        every=asked.every,
        importance=asked.importance,
        multiple=asked.multiple,
        skip=asked.skip,
    )
    epochs = []
    training = fit(
        model,
        bench.data,
        arguments_of(model, recipe.data.inputs),
        schedule,
        seed=recipe.seed,
        optimizer=optimizer,
        after_step=pruning.on_step,
        loss_of=loss_of,
    )
    with context.console.track("pruning, epochs", asked.epochs) as advance:
        for done in training:
            epochs.append(Epoch(loss=done.loss, lr=done.lr, seconds=round(done.seconds, 3)))
            advance(len(epochs), f"cost {pruning.now / pruning.before:.2f}")
    model.eval()
    report = pruning.finish()
    before, after = (
        Figure(value=value, unit=cost.unit, origin="modelled", source=cost.source)
        for value in (report.before, report.after)
    )
    return PrunedChannels(
        before=before,
        after=after,
        epochs=tuple(epochs),
        channels=dict(report.channels),
        refused=dict(report.refused),
    )


def sparsity_of(context: Context, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Sparsity | None:
    """Zeros as the recipe asks for them, to be made before the `QATCallback`; None where it does not."""
    from bitwright.qat.sparsity import Sparsity

    assert context.recipe.qat is not None
    asked = context.recipe.qat.sparsity
    if asked is None:
        return None
    return Sparsity(
        model,
        optimizer,
        pattern=asked.pattern,
        share=asked.share,
        example=context.bench.example(model) if asked.permute else None,
        skip=asked.skip,
        begin=asked.begin,
        end=asked.end,
        freeze_after=asked.freeze_after,
    )


def zeros_of(report: SparsityReport, quantized: QuantizedModel) -> SparseWeights:
    """The zeros that the deployed network has, counted in its weights' codes."""
    zero = total = 0
    for ref in quantized.plan.weights:
        if ref.module_path in report.zeros:
            codes = quantized.captured.values[quantized.captured.value_refs[ref]]
            zero, total = zero + int((codes == 0).sum()), total + codes.numel()
    share = Figure(value=zero / max(1, total), unit="1", origin="measured", source="weights of the trained network")
    return SparseWeights(pattern=report.pattern, zeros=share, weights=total, dense=dict(report.dense))
