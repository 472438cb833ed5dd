"""How good a network is, and how close to another: over built-in metrics or the user's own, by slice where asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from bitwright.experiments.console import Console
from bitwright.experiments.datasets import Split
from bitwright.experiments.entries import call_entry, wrong_result
from bitwright.experiments.inputs import ToArguments, arguments_of, first_rows, require_sizes, row_count
from bitwright.experiments.metrics import Agreement, first_tensor
from bitwright.experiments.recipe import AGREEMENT
from bitwright.experiments.scores import Comparison, Score, Tally
from bitwright.experiments.slices import OfSlice, slices_of
from bitwright.experiments.training import check_classes, labels_of
from bitwright.experiments.workbench import Workbench
from bitwright.quant.errors import InputError

_BATCH = 32
# The outputs of a network are compared on so many batches when its metric is the user's own; that settles an SQNR.
_COMPARED_BATCHES = 8
Predict = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Networks on the same samples, the first of them the reference.

    Attributes:
        scores: of each.
        comparisons: of each but the first with the first.
        slices: the same over the samples of each slice, by its name; empty where the recipe names none.
    """

    scores: list[Score]
    comparisons: list[Comparison]
    slices: Mapping[str, Evaluated] = field(default_factory=dict)


def evaluate_model(bench: Workbench, model: torch.nn.Module) -> Score:
    """Scores a network in eval mode, as PyTorch runs it; its mode is put back."""
    training = model.training
    model.eval()
    try:
        (score,), _ = evaluate(bench, model, [model])
    finally:
        model.train(training)
    return score


def evaluate(
    bench: Workbench, model: torch.nn.Module, networks: Sequence[Predict], *, console: Console | None = None
) -> tuple[list[Score], list[Comparison]]:
    """Scores networks on the same samples, and compares each with the first; see `evaluate_slices`."""
    found = evaluate_slices(bench, model, networks, console=console, by_slice=False)
    return found.scores, found.comparisons


@torch.no_grad()
def evaluate_slices(
    bench: Workbench,
    model: torch.nn.Module,
    networks: Sequence[Predict],
    *,
    console: Console | None = None,
    by_slice: bool = True,
) -> Evaluated:
    """Scores networks on all samples and on those of each slice, and compares each with the first.

    Args:
        bench: gives the data, the metric and the slices.
        model: tells which parts of a batch are the arguments.
        networks: each called with the arguments of `forward`; the first is the reference.
        console: shows progress.
        by_slice: whether slices are told apart.

    Raises:
        InputError: the data do not fit the metric or the network, or the user's metric returned the wrong thing.
    """
    asked, data = bench.recipe.evaluate, bench.data
    if asked.entry is not None:
        return _by_entry(bench, model, networks, by_slice=by_slice)

    def tally() -> Tally:
        return Tally(len(networks), asked.metric, classes=data.classes, ignore_label=data.ignore_label)

    whole, parts = tally(), dict[str, Tally]()
    example = bench.example(model) if len(networks) > 1 else None
    total = asked.samples or data.splits.get(Split.EVALUATE)
    with (console or Console(quiet=True)).track("scoring, samples", total) as advance:
        for arguments, labels, names in _labelled(bench, model, by_slice=by_slice):
            if example is not None:
                require_sizes(arguments, example)
            logits = [first_tensor(network(*arguments)) for network in networks]
            check_classes(logits[0], data)
            labels = decisions(logits[0]) if labels is None else labels
            whole.update(logits, labels)
            for name in dict.fromkeys(names):
                rows = [row for row, each in enumerate(names) if each == name]
                parts.setdefault(name, tally()).update([each[rows] for each in logits], labels[rows])
            advance(whole.samples)
    if not whole.samples:
        raise InputError("data: the evaluation split is empty; there is nothing to score")
    slices = {name: Evaluated(scores=parts[name].scores, comparisons=parts[name].comparisons) for name in sorted(parts)}
    return Evaluated(scores=whole.scores, comparisons=whole.comparisons, slices=slices)


def _labelled(
    bench: Workbench, model: torch.nn.Module, *, by_slice: bool
) -> Iterator[tuple[Any, torch.Tensor | None, list[str]]]:
    """Arguments, labels and slices of the evaluation data, as many samples as the recipe asks for.

    Agreement needs no labels, and has none; names of slices are empty where nobody asks for them.
    """
    recipe, left = bench.recipe, bench.recipe.evaluate.samples
    read, labelled = arguments_of(model, recipe.data.inputs), recipe.evaluate.metric != AGREEMENT
    for batch in bench.evaluation(model, batch=_BATCH):
        arguments = read(batch)
        parts = (*arguments, labels_of(batch)) if labelled else arguments
        rows = row_count(parts)
        names = slices_of(batch, recipe.data.slices, rows) if by_slice and recipe.data.slices else []
        if left is not None:
            parts, left = (first_rows(parts, left) if left < rows else parts), left - min(left, rows)
            names = names[: row_count(parts)]
        yield (parts[:-1], parts[-1], names) if labelled else (parts, None, names)
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


def _by_entry(bench: Workbench, model: torch.nn.Module, networks: Sequence[Predict], *, by_slice: bool) -> Evaluated:
    read, slices = arguments_of(model, bench.recipe.data.inputs), bench.recipe.data.slices
    batches = bench.evaluation(model, batch=_BATCH)
    found = _by_entry_on(bench, batches, read, networks)
    if slices is None or not by_slice:
        return found
    names = {name for batch in batches for name in slices_of(batch, slices, row_count(read(batch)))}
    parts = {
        name: _by_entry_on(bench, OfSlice(batches, read, slices, name), read, networks) for name in sorted(names)
    }  # fmt: skip
    return replace(found, slices=parts)


def _by_entry_on(bench: Workbench, batches: Iterable[Any], read: ToArguments, networks: Sequence[Predict]) -> Evaluated:
    asked, entry = bench.recipe.evaluate, bench.recipe.evaluate.entry or ""
    scores = []
    for network in networks:
        result = call_entry("evaluate.entry", entry, network, batches)
        if not isinstance(result, Mapping) or not all(isinstance(each, int | float) for each in result.values()):
            raise wrong_result("evaluate.entry", entry, result, "a dict of numbers by metric name")
        if asked.metric not in result:
            raise InputError(
                f"evaluate.entry = {entry!r}: returned {sorted(result)}; none is evaluate.metric = {asked.metric!r}"
            )
        scores.append(Score(metrics={name: float(each) for name, each in result.items()}, samples=0))
    agreements = [Agreement() for _ in networks[1:]]
    compared = 0
    for arguments in map(read, itertools.islice(batches, _COMPARED_BATCHES)):
        compared += row_count(arguments)
        reference = first_tensor(networks[0](*arguments))
        for network, agreement in zip(networks[1:], agreements, strict=True):
            agreement.update(reference, first_tensor(network(*arguments)))
    comparisons = [
        Comparison(
            agreement_percent=None,
            decisions=0,
            sqnr_db=each.sqnr_db,
            samples=compared,
            sqnr_interval=each.sqnr_interval(),
        )
        for each in agreements
    ]
    return Evaluated(scores=scores, comparisons=comparisons)
