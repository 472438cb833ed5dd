"""Built-in metrics, counted batch by batch so that memory stays small, for two networks side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

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


@dataclass
class TopOne:
    """Share of samples whose largest logit is the label's, in percent."""

    ignore_label: int | None = None
    right: int = 0
    count: int = 0

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """See `Metric`."""
        counted = labels != self.ignore_label if self.ignore_label is not None else torch.ones_like(labels).bool()
        self.right += int(((logits.argmax(1) == labels) & counted).sum())
        self.count += int(counted.sum())

    def value(self) -> float:
        """See `Metric`."""
        return 100.0 * self.right / max(1, self.count)


@dataclass
class MeanIoU:
    """Mean over classes of intersection ÷ union of pixels, in percent; classes that never occur do not count."""

    classes: int
    ignore_label: int | None = None
    confusion: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = torch.zeros(self.classes, self.classes, dtype=torch.int64)

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """See `Metric`."""
        decided = logits.argmax(1).flatten()
        truth = labels.flatten()
        counted = (truth >= 0) & (truth < self.classes) & (decided < self.classes)
        if self.ignore_label is not None:
            counted &= truth != self.ignore_label
        pairs = truth[counted] * self.classes + decided[counted]
        self.confusion += torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes)

    def value(self) -> float:
        """See `Metric`."""
        inside = self.confusion.diagonal().double()
        union = self.confusion.sum(0) + self.confusion.sum(1) - self.confusion.diagonal()
        present = union > 0
        return 100.0 * float((inside[present] / union[present]).mean()) if present.any() else 0.0


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
