"""How good a network is, and how close to another: over built-in metrics or the user's own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bitwright.experiments.console import Console
from bitwright.experiments.datasets import Split
from bitwright.experiments.entries import call_entry, wrong_result
from bitwright.experiments.inputs import arguments_of, first_rows, row_count
from bitwright.experiments.metrics import Agreement, create_metric, first_tensor
from bitwright.experiments.recipe import AGREEMENT
from bitwright.experiments.training import check_classes, labels_of
from bitwright.experiments.workbench import Workbench
from bitwright.hw_constraints.figures import Interval
from bitwright.quant.errors import InputError

_BATCH = 32
# The outputs of a network are compared on so many batches when its metric is the user's own; that settles an SQNR.
_COMPARED_BATCHES = 8
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
    samples: int
    difference: Interval | None = None
    sqnr_interval: Interval | None = None


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
    hits: list[list[torch.Tensor]] = [[] for _ in networks]
    samples = 0
    total = asked.samples or data.splits.get(Split.EVALUATE)
    with (console or Console(quiet=True)).track("scoring, samples", total) as advance:
        for arguments, labels in _labelled(bench, model):
            logits = [first_tensor(network(*arguments)) for network in networks]
            check_classes(logits[0], data)
            labels = decisions(logits[0]) if labels is None else labels
            for each, counter, agreement, hit in zip(logits, counters, agreements, hits, strict=True):
                counter.update(each, labels)
                agreement.update(logits[0], each)
                hit.append(each.argmax(1) == labels)
            samples += row_count(labels)
            advance(samples)
    if not samples:
        raise InputError("data: the evaluation split is empty; there is nothing to score")
    paired = asked.metric in ("top1", AGREEMENT) and hits[0][0].dim() == 1
    scores = [Score(metrics={asked.metric: counter.value()}, samples=samples) for counter in counters]
    return scores, [
        Comparison(
            agreement_percent=each.percent,
            decisions=each.decisions,
            sqnr_db=each.sqnr_db,
            samples=samples,
            difference=paired_interval(torch.cat(hits[0]), torch.cat(hit)) if paired else None,
            sqnr_interval=each.sqnr_interval(),
        )
        for each, hit in zip(agreements[1:], hits[1:], strict=True)
    ]


def _labelled(bench: Workbench, model: torch.nn.Module) -> Iterator[tuple[Any, torch.Tensor | None]]:
    """Arguments and labels of the evaluation data, as many samples as the recipe asks for; no labels for agreement."""
    recipe, left = bench.recipe, bench.recipe.evaluate.samples
    read, labelled = arguments_of(model, recipe.data.inputs), recipe.evaluate.metric != AGREEMENT
    for batch in bench.evaluation(model, batch=_BATCH):
        arguments = read(batch)
        parts = (*arguments, labels_of(batch)) if labelled else arguments
        rows = row_count(parts)
        if left is not None:
            parts, left = (first_rows(parts, left) if left < rows else parts), left - min(left, rows)
        yield (parts[:-1], parts[-1]) if labelled else (parts, None)
        if left == 0:
            return


def decisions(logits: torch.Tensor) -> torch.Tensor:
    """What a network decides: int64 `[N, …]` of `[N, classes, …]`.

    Raises:
        InputError: the output has no dimension of classes.
    """
    if logits.dim() < 2:
        raise InputError(
            f"evaluate.metric = {AGREEMENT!r}: the model's output {list(logits.shape)} has no dimension of classes; "
            "give evaluate.entry, a metric of your own"
        )
    return logits.argmax(1)


def paired_interval(reference: torch.Tensor, candidate: torch.Tensor) -> Interval:
    """The difference of two hit rates in points, candidate - reference, with its 95 % interval.

    Paired over the samples: with b samples that only the candidate hits and c that only the reference hits, the
    adjusted Wald interval of Bonett & Price (2012), which is honest for b = c = 0, too: one is added to each.

    Args:
        reference: bool [N].
        candidate: bool [N].
    """
    count = len(reference)
    won, lost = int((candidate & ~reference).sum()), int((reference & ~candidate).sum())
    p, q = (won + 1) / (count + 2), (lost + 1) / (count + 2)
    spread = 1.96 * math.sqrt((p + q - (p - q) ** 2) / (count + 2))
    value = (won - lost) / count
    return Interval(value=100 * value, low=100 * min(value, p - q - spread), high=100 * max(value, p - q + spread))


def _by_entry(
    bench: Workbench, model: torch.nn.Module, networks: Sequence[Predict]
) -> tuple[list[Score], list[Comparison]]:
    asked, entry = bench.recipe.evaluate, bench.recipe.evaluate.entry or ""
    scores = []
    for network in networks:
        loader = bench.evaluation(model, batch=_BATCH)
        result = call_entry("evaluate.entry", entry, network, loader)
        if not isinstance(result, Mapping) or not all(isinstance(each, int | float) for each in result.values()):
            raise wrong_result("evaluate.entry", entry, result, "a dict of numbers by metric name")
        if asked.metric not in result:
            raise InputError(
                f"evaluate.entry = {entry!r}: returned {sorted(result)}; none is evaluate.metric = {asked.metric!r}"
            )
        scores.append(Score(metrics={name: float(each) for name, each in result.items()}, samples=0))
    agreements = [Agreement() for _ in networks[1:]]
    compared = 0
    read = arguments_of(model, bench.recipe.data.inputs)
    for arguments in map(read, itertools.islice(bench.evaluation(model, batch=_BATCH), _COMPARED_BATCHES)):
        compared += row_count(arguments)
        reference = first_tensor(networks[0](*arguments))
        for network, agreement in zip(networks[1:], agreements, strict=True):
            agreement.update(reference, first_tensor(network(*arguments)))
    return scores, [
        Comparison(
            agreement_percent=None,
            decisions=0,
            sqnr_db=each.sqnr_db,
            samples=compared,
            sqnr_interval=each.sqnr_interval(),
        )
        for each in agreements
    ]
