"""Built-in metrics, counted batch by batch so that memory stays small, for two networks side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from bitwright.experiments.comparable import wilson_interval
from bitwright.experiments.recipe import AGREEMENT, METRICS
from bitwright.hw_constraints.figures import Interval
from bitwright.quant.errors import InputError
from bitwright.quant.sqnr import sqnr_db

UNITS = dict.fromkeys(METRICS, "%")
_RESAMPLES = 1_000
_FEWEST = 8  # samples, for an interval that means something


class Metric(Protocol):
    """Counts batches, gives the value at the end."""

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Counts one batch: float [N, classes, …] and int64 [N, …]."""

    def value(self) -> float:
        """The metric over everything counted, in percent."""

    def interval(self) -> Interval | None:
        """With its 95 % interval over the choice of samples; None where they are too few."""


@dataclass
class TopOne:
    """Share of decisions whose largest logit is the label's, in percent."""

    ignore_label: int | None = None
    _once: bool = True  # whether each sample is one decision
    _counts: list[torch.Tensor] = field(default_factory=list)  # right and all of each sample, int64 [N, 2]

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """See `Metric`."""
        counted = labels != self.ignore_label if self.ignore_label is not None else torch.ones_like(labels).bool()
        right = (logits.argmax(1) == labels) & counted
        self._once &= labels.dim() == 1 and self.ignore_label is None
        self._counts.append(torch.stack([each.reshape(len(each), -1).sum(1) for each in (right, counted)], 1))

    def value(self) -> float:
        """See `Metric`."""
        right, count = torch.cat(self._counts).sum(0).tolist() if self._counts else (0, 0)
        return 100.0 * right / max(1, count)

    def interval(self) -> Interval | None:
        """That of counting where each sample is one decision, else bootstrapped: pixels of a picture hang together."""
        if not self._counts:
            return None
        counts = torch.cat(self._counts)
        if not self._once:
            return resampled_ratio(self.value(), counts[:, :1].numpy(), counts[:, 1:].numpy())
        value, low, high = wilson_interval(self.value(), len(counts))
        return Interval(value=value, low=low, high=high)


@dataclass
class MeanIoU:
    """Mean over classes of intersection ÷ union of pixels, in percent; classes that never occur do not count."""

    classes: int
    ignore_label: int | None = None
    _areas: list[torch.Tensor] = field(default_factory=list)  # intersection and union of each sample, [N, 2, classes]

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """See `Metric`."""
        decided, truth = logits.argmax(1), labels
        counted = (truth >= 0) & (truth < self.classes) & (decided < self.classes)
        if self.ignore_label is not None:
            counted &= truth != self.ignore_label
        sample = torch.arange(len(labels)).view(-1, *[1] * (labels.dim() - 1)).expand_as(labels)[counted]
        decided, truth = decided[counted], truth[counted]

        def areas(of: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
            flat = torch.bincount(where * self.classes + of, minlength=len(labels) * self.classes)
            return flat.view(len(labels), self.classes)

        inside = areas(truth[decided == truth], sample[decided == truth])
        self._areas.append(torch.stack([inside, areas(truth, sample) + areas(decided, sample) - inside], 1))

    def value(self) -> float:
        """See `Metric`."""
        if not self._areas:
            return 0.0
        inside, union = torch.cat(self._areas).sum(0).double()
        present = union > 0
        return 100.0 * float((inside[present] / union[present]).mean()) if present.any() else 0.0

    def interval(self) -> Interval | None:
        """Bootstrapped over pictures, whose pixels hang together."""
        if not self._areas:
            return None
        inside, union = torch.cat(self._areas).unbind(1)
        return resampled_ratio(self.value(), inside.numpy(), union.numpy())


def resampled_ratio(value: float, inside: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Interval | None:
    """The mean over columns of `Σ inside ÷ Σ whole` with its 95 % interval, bootstrapped over samples.

    The percentile interval of Efron & Tibshirani 1993, section 13.3; columns of which a draw has nothing do not count
    in it.

    Args:
        value: of all samples, in percent.
        inside: counts, int64 [N, columns].
        whole: likewise.

    Returns:
        None for fewer samples than mean anything.
    """
    count = len(inside)
    if count < _FEWEST:
        return None
    random, evenly = np.random.default_rng(0), np.full(count, 1 / count)
    means = []
    for _ in range(_RESAMPLES):
        drawn = random.multinomial(count, evenly)
        part, all_ = drawn @ inside, drawn @ whole
        present = all_ > 0
        means.append(100 * float((part[present] / all_[present]).mean()) if present.any() else 0.0)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(value=value, low=min(value, float(low)), high=max(value, float(high)))


def create_metric(name: str, *, classes: int | None, ignore_label: int | None) -> Metric:
    """A fresh counter.

    Raises:
        InputError: there is no such metric, or it needs to know the number of classes.
    """
    if name == AGREEMENT:  # top1 with the float network's decisions for labels
        return TopOne()
    if name == "top1":
        return TopOne(ignore_label)
    if name == "miou" and classes is not None:
        return MeanIoU(classes, ignore_label)
    if name == "miou":
        raise InputError("evaluate.metric = 'miou' needs data with a known number of classes")
    raise InputError(f"evaluate.metric = {name!r}; built in are {', '.join(METRICS)}; others come from evaluate.entry")


@dataclass
class Agreement:
    """How often two networks decide alike, and how far their outputs lie apart."""

    alike: int = 0
    decisions: int = 0
    rows: list[torch.Tensor] = field(default_factory=list)  # signal and noise of each sample, float64 [N, 2]

    def update(self, reference: torch.Tensor, candidate: torch.Tensor) -> None:
        """Counts one batch of logits."""
        if reference.dim() > 1:
            same = reference.argmax(1) == candidate.argmax(1)
            self.alike += int(same.sum())
            self.decisions += same.numel()
        parts = (reference.double(), reference.double() - candidate.double())
        self.rows.append(torch.stack([each.square().reshape(len(each), -1).sum(1) for each in parts], 1))

    @property
    def percent(self) -> float:
        """Share of equal decisions."""
        return 100.0 * self.alike / max(1, self.decisions)

    @property
    def sqnr_db(self) -> float:
        """`10 log10(Σ reference² / Σ (reference − candidate)²)` over everything counted."""
        signal, noise = torch.cat(self.rows).sum(0).tolist() if self.rows else (0.0, 0.0)
        return sqnr_db(signal, noise)

    def sqnr_interval(self) -> Interval | None:
        """The SQNR with its 95 % interval, bootstrapped over samples; None where they are too few or exact."""
        samples = torch.cat(self.rows).numpy() if self.rows else np.zeros((0, 2))
        if len(samples) < _FEWEST or samples.sum(0).min() <= 0:
            return None
        drawn = np.random.default_rng(0).multinomial(len(samples), np.full(len(samples), 1 / len(samples)), _RESAMPLES)
        signal, noise = (drawn @ samples).T
        ends = np.percentile(10 * np.log10(signal / np.maximum(noise, np.finfo(float).tiny)), [2.5, 97.5])
        value = self.sqnr_db
        return Interval(value=value, low=min(value, ends[0]), high=max(value, ends[1]))


Predict = Callable[..., Any]


def first_tensor(output: Any) -> torch.Tensor:
    """The tensor that metrics look at: the output itself, or the first floating-point tensor in it.

    Raises:
        InputError: there is none.
    """
    import torch.utils._pytree as pytree

    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            return leaf
    raise InputError(f"the model's output ({type(output).__name__}) holds no floating-point tensor")
