"""The part of the stage `qat` that learns a number format for every layer, when the recipe asks for it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from bitwright.experiments.mixed_amount import FIRST_TO_LEAST, amount
from bitwright.experiments.mixed_formats import cost_of, layer_formats
from bitwright.experiments.qat_result import LearnedFormats
from bitwright.experiments.record import Figure
from bitwright.experiments.results import Epoch
from bitwright.experiments.smaller_network import steps_of_epoch
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from typing import Any

    import torch

    from bitwright.experiments.recipe_training import QATMixed
    from bitwright.experiments.stage import Context
    from bitwright.experiments.training import Loss
    from bitwright.qat import FormatSearch
    from bitwright.quant.scheme import QuantScheme

_WHERE = ("qat", "mixed")


def learn_formats(
    context: Context, model: torch.nn.Module, scheme: QuantScheme, loss_of: Loss
) -> tuple[QuantScheme, LearnedFormats | None]:
    """Learns formats on a copy of the network; the network itself stays as it is.

    Args:
        context: of the stage.
        model: in float; smaller already where channels have left.
        scheme: what the recipe asks for apart from that.
        loss_of: of (logits, labels, arguments).

    Returns:
        The scheme with an override for each layer that is an exception to it, and what was found; the scheme as it is
        and None where the recipe does not ask for it.

    Raises:
        InputError: a format, cost or budget that cannot be had.
    """
    from bitwright.qat import FormatSearch, SearchSettings

    recipe, target = context.recipe, context.bench.target
    asked = recipe.qat.mixed if recipe.qat is not None else None
    if asked is None:
        return scheme, None
    assert recipe.qat is not None
    name = "latency" if asked.budget.latency is not None else "size"
    cost = cost_of(name, recipe, target, where=_WHERE)
    searched = copy.deepcopy(model)
    try:
        search = FormatSearch(
            searched,
            scheme,
            layer_formats(asked.formats, scheme, target, where=_WHERE),
            list(context.bench.calibration(searched)),
            cost=cost.of,
            budget=lambda first, least: _budget(asked, name, first, least),
            search=SearchSettings(steps=asked.epochs * steps_of_epoch(context, recipe.qat.batch)),
        )
    except InputError as error:
        raise InputError(f"qat.mixed: {error}") from error
    context.console.say(f"    learning formats of {len(search.units)} groups of layers")
    epochs = _train(context, searched, search, asked, loss_of)
    picks = search.chosen()
    formats, value = search.assignment(picks), search.cost(picks)
    overrides = search.finish()

    def figure(value: float) -> Figure:
        origin = "measured" if cost.origin == "counted" else "modelled"
        return Figure(value=value, unit=cost.unit, origin=origin, source=f"learned formats, {cost.origin}")

    found = LearnedFormats(
        formats=formats,
        cost=figure(value),
        budget=figure(search.budget),
        first=figure(search.table.constant),
        epochs=epochs,
    )
    counts = ", ".join(f"{list(formats.values()).count(each)} in {each}" for each in asked.formats)
    context.console.say(f"    {counts}; {name} {cost.said(value)} of {cost.said(search.budget)}")
    return scheme.with_overrides(*overrides), found


def _train(
    context: Context, model: torch.nn.Module, search: FormatSearch, asked: QATMixed, loss_of: Loss
) -> tuple[Epoch, ...]:
    import torch

    from bitwright.experiments.inputs import arguments_of
    from bitwright.experiments.training import Schedule, fit

    recipe, bench = context.recipe, context.bench
    assert recipe.qat is not None
    schedule = Schedule(epochs=asked.epochs, batch=recipe.qat.batch, lr=asked.lr)
    groups: list[dict[str, Any]] = [
        {"params": list(model.parameters())},
        {"params": list(search.parameters()), "weight_decay": 0.0, "lr_scale": asked.format_lr / asked.lr},
    ]
    optimizer = torch.optim.AdamW(groups, lr=schedule.lr, weight_decay=schedule.weight_decay)

    def loss(logits: torch.Tensor, labels: torch.Tensor, arguments: tuple[Any, ...]) -> torch.Tensor:
        return loss_of(logits, labels, arguments) + search.penalty()

    epochs: list[Epoch] = []
    training = fit(
        model,
        bench.data,
        arguments_of(model, recipe.data.inputs),
        schedule,
        seed=recipe.seed,
        optimizer=optimizer,
        after_step=search.on_step,
        loss_of=loss,
    )
    with context.console.track("learning formats, epochs", asked.epochs) as advance:
        for done in training:
            epochs.append(Epoch(loss=done.loss, lr=done.lr, seconds=round(done.seconds, 3)))
            advance(len(epochs), f"loss {done.loss:.3f}")
    return tuple(epochs)


def _budget(asked: QATMixed, name: str, first: float, least: float) -> float:
    value = getattr(asked.budget, name)
    if isinstance(value, str):
        return amount(name, value, where="qat.mixed", share=FIRST_TO_LEAST)
    return float(first + value * (least - first))
