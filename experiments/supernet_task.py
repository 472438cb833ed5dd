"""Data of recipes as shared weights learn from them (`nas.supernet.Task`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch

from bitwright.experiments.datasets import Data, Split
from bitwright.experiments.inputs import Arguments, ToArguments
from bitwright.experiments.metrics import create_metric, first_tensor
from bitwright.experiments.training import check_classes, labels_of, loss_by_labels
from bitwright.nas.supernet.task import Batch
from bitwright.qat.distillation.logits import distillation_loss
from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class DataTask:
    """Learns a data set's training samples, scores on the first of those that are evaluated, which it keeps in memory.

    Attributes:
        data: with labels.
        read: the network's arguments out of a batch.
        batch: samples a step.
        metric: a name of `recipe.METRICS`.
        samples: how many are scored; None scores all.
        origin: a function and its arguments that make this task anew; so it travels to workers, which open the data
            themselves.
    """

    data: Data
    read: ToArguments
    batch: int
    metric: str = "top1"
    samples: int | None = None
    origin: tuple[Callable[..., DataTask], tuple[Any, ...]] | None = None

    def __reduce__(self) -> tuple[Callable[..., DataTask], tuple[Any, ...]]:
        """By its origin.

        Raises:
            TypeError: it has none.
        """
        if self.origin is None:
            raise TypeError("this DataTask has no origin, so it cannot travel; give one")
        return self.origin

    @cached_property
    def steps(self) -> int:
        """Batches of one pass; counted where the data do not say how many samples they have."""
        count = self.data.splits.get(Split.TRAIN)
        if count is None:
            return sum(1 for _ in self.data.loader(Split.TRAIN, self.batch, 0))
        return -(-count // self.batch)

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """The data, the size of batches, and what scores them."""
        scored = "all" if self.samples is None else str(self.samples)
        return {"data": self.data.fingerprint, "batch": str(self.batch), "metric": self.metric, "scored": scored}

    def batches(self, seed: int) -> Iterator[Batch]:
        """One pass over the training samples."""
        for batch in self.data.loader(Split.TRAIN, self.batch, seed):
            yield self.read(batch), labels_of(batch)

    def loss(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """The loss of the data's task.

        Raises:
            InputError: the network has another number of classes than the data.
        """
        logits = first_tensor(outputs)
        check_classes(logits, self.data)
        return loss_by_labels(logits, labels, self.data)

    def distil(self, outputs: Any, teacher: Any) -> torch.Tensor:
        """The data's own imitation, else the divergence of the classes' probabilities."""
        imitate: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = distillation_loss
        if self.data.task is not None:
            imitate = self.data.task.distil
        return imitate(first_tensor(outputs), first_tensor(teacher))

    def score(self, network: torch.nn.Module) -> float:
        """The metric, in its unit."""
        metric = create_metric(self.metric, classes=self.data.classes, ignore_label=self.data.ignore_label)
        with torch.inference_mode():
            for arguments, labels in self._scored:
                metric.update(first_tensor(network(*arguments)), labels)
        return metric.value()

    @cached_property
    def _scored(self) -> list[tuple[Arguments, torch.Tensor]]:
        """The samples, in a few batches.

        Raises:
            InputError: the data have none to score.
        """
        size = min(self.samples or self.batch, 4 * self.batch)
        most = None if self.samples is None else -(-self.samples // size)
        found = [
            (self.read(batch), labels_of(batch)) for batch in islice(self.data.loader(Split.EVALUATE, size, None), most)
        ]
        if not found:
            raise InputError("supernet: the data have no samples to score")
        return found
