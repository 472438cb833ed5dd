"""How good a network is, and how close to another: over built-in metrics or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bitwright.experiments.console import Console
from bitwright.experiments.datasets import Split
from bitwright.experiments.entries import call_entry, wrong_result
from bitwright.experiments.inputs import arguments_of, first_rows, row_count
from bitwright.experiments.metrics import Agreement, create_metric, first_tensor
from bitwright.experiments.training import check_classes, labels_of
from bitwright.experiments.workbench import Workbench
from bitwright.quant.errors import InputError

_BATCH = 32
Predict = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Metrics of one network, over so many samples."""

    metrics: Mapping[str, float]
    samples: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate against the reference, sample by sample; None where a user's own metric decides."""

    agreement_percent: float | None
    decisions: int
    sqnr_db: float


def evaluate_model(bench: Workbench, model: torch.nn.Module) -> Score:
    """Scores a network in eval mode, as PyTorch runs it; its mode is put back."""
    training = model.training
    model.eval()
    try:
        (score,), _ = evaluate(bench, model, [model])
    finally:
        model.train(training)
    return score


@torch.no_grad()
def evaluate(
    bench: Workbench, model: torch.nn.Module, networks: Sequence[Predict], *, console: Console | None = None
) -> tuple[list[Score], list[Comparison]]:
    """Scores networks on the same samples, and compares each with the first.

    Args:
        bench: gives the data and the metric.
        model: tells which parts of a batch are the arguments.
        networks: each called with the arguments of `forward`; the first is the reference.
        console: shows progress.

    Raises:
        InputError: the data do not fit the metric or the network, or the user's metric returned the wrong thing.
    """
    asked = bench.recipe.evaluate
    if asked.entry is not None:
        return _by_entry(bench, model, networks)
    data = bench.data
    counters = [create_metric(asked.metric, classes=data.classes, ignore_label=data.ignore_label) for _ in networks]
    agreements = [Agreement() for _ in networks]
    read, samples = arguments_of(model, bench.recipe.data.inputs), 0
    total = asked.samples or data.splits.get(Split.EVALUATE)
    with (console or Console(quiet=True)).track("scoring, samples", total) as advance:
        for batch in data.loader(Split.EVALUATE, _BATCH, None):
            arguments, labels = read(batch), labels_of(batch)
            if asked.samples is not None and samples + row_count(arguments) > asked.samples:
                arguments, labels = (
                    first_rows((*arguments, labels), asked.samples - samples)[:-1],
                    labels[: asked.samples - samples],
                )
            logits = [first_tensor(network(*arguments)) for network in networks]
            check_classes(logits[0], data)
            for each, counter, agreement in zip(logits, counters, agreements, strict=True):
                counter.update(each, labels)
                agreement.update(logits[0], each)
            samples += row_count(arguments)
            advance(samples)
            if samples == asked.samples:
                break
    if not samples:
        raise InputError("data: the evaluation split is empty; there is nothing to score")
    scores = [Score(metrics={asked.metric: counter.value()}, samples=samples) for counter in counters]
    return scores, [
        Comparison(agreement_percent=each.percent, decisions=each.decisions, sqnr_db=each.sqnr_db)
        for each in agreements[1:]
    ]


def _by_entry(
    bench: Workbench, model: torch.nn.Module, networks: Sequence[Predict]
) -> tuple[list[Score], list[Comparison]]:
    asked, entry = bench.recipe.evaluate, bench.recipe.evaluate.entry or ""
    scores = []
    for network in networks:
        loader = bench.data.loader(Split.EVALUATE, _BATCH, None)
        result = call_entry("evaluate.entry", entry, network, loader)
        if not isinstance(result, Mapping) or not all(isinstance(each, int | float) for each in result.values()):
            raise wrong_result("evaluate.entry", entry, result, "a dict of numbers by metric name")
        if asked.metric not in result:
            raise InputError(
                f"evaluate.entry = {entry!r}: returned {sorted(result)}; evaluate.metric = {asked.metric!r} is not there"
            )
        scores.append(Score(metrics={name: float(each) for name, each in result.items()}, samples=0))
    agreements = [Agreement() for _ in networks[1:]]
    for arguments in _some(bench.arguments(model, Split.EVALUATE, batch=_BATCH)):
        reference = first_tensor(networks[0](*arguments))
        for network, agreement in zip(networks[1:], agreements, strict=True):
            agreement.update(reference, first_tensor(network(*arguments)))
    return scores, [Comparison(agreement_percent=None, decisions=0, sqnr_db=each.sqnr_db) for each in agreements]


# The outputs of a network are compared on so many batches when its metric is the user's own; that settles an SQNR.
_COMPARED_BATCHES = 8


def _some(batches: Iterator[Any]) -> Iterator[Any]:
    for _, batch in zip(range(_COMPARED_BATCHES), batches, strict=False):
        yield batch
