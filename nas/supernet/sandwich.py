"""One step of training with shared weights: the sandwich rule with in-place distillation (Yu & Huang 2019).

Per batch, the gradients of several networks are summed in the weights that they share. The largest learns from the
labels, all others imitate what the largest has just answered, so that no second network has to teach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.func import functional_call

from bitwright.nas.elastic import Elastic, shared_state
from bitwright.nas.elastic.parts import remembered
from bitwright.nas.space import Candidate, hash_of
from bitwright.nas.supernet.task import Batch, Task
from bitwright.quant.errors import InputError


class LossNotFinite(InputError):
    """A loss is infinite or not a number; the message names the candidate."""


class Sandwich:
    """Sums gradients into `elastic.largest`; who steps the optimizer is not asked.

    Args:
        elastic: whose weights are trained.
        task: what they learn.
        labels: see `SupernetSettings.labels`.
    """

    def __init__(self, elastic: Elastic, task: Task, *, labels: float = 0.0) -> None:
        self.elastic, self.task, self.labels = elastic, task, labels
        self._networks: dict[str, nn.Module] = {}

    def backward(self, candidates: Sequence[Candidate], batch: Batch, *, seed: int) -> list[float]:
        """Adds the gradients of a batch's losses to those that are there.

        `sum_c dL_c / dw`, where the largest has `L = loss(y_0, labels)` and candidate c
        `L = share * loss(y_c, labels) + (1 - share) * distil(y_c, y_0)`, `y_0` taken as a constant.

        Args:
            candidates: the largest first.
            batch: arguments of `forward`, and labels.
            seed: of what layers draw by chance, such as dropout, in each of the networks.

        Returns:
            The loss of each.

        Raises:
            LossNotFinite: a loss is no longer finite.
            InputError: a candidate's network is no part of the largest.
        """
        arguments, labels = batch
        largest, *smaller = candidates
        with _seeded(seed):
            outputs = self.elastic.largest(*arguments)
        losses = [self._add(largest, self.task.loss(outputs, labels))]
        teacher = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, outputs)
        for candidate in smaller:
            network, state = self._network(candidate), shared_state(self.elastic, candidate)
            with _seeded(seed):  # only now: building a network draws, too
                outputs = functional_call(network, state, arguments)
            losses.append(self._add(candidate, self._loss(outputs, labels, teacher)))
        return losses

    def _loss(self, outputs: Any, labels: Any, teacher: Any) -> torch.Tensor:
        if self.labels == 0:
            return self.task.distil(outputs, teacher)
        if self.labels == 1:
            return self.task.loss(outputs, labels)
        imitated = self.task.distil(outputs, teacher)
        return self.labels * self.task.loss(outputs, labels) + (1 - self.labels) * imitated

    def _add(self, candidate: Candidate, loss: torch.Tensor) -> float:
        value = float(loss.detach())
        if not torch.isfinite(loss):
            raise LossNotFinite(f"the loss of candidate ({candidate}) became {value}")
        loss.backward()  # type: ignore[no-untyped-call]
        return value

    def _network(self, candidate: Candidate) -> nn.Module:
        """The candidate's modules without values: those come from the shared weights at each call."""
        key = hash_of(dict(self.elastic.space.architecture(candidate)))
        return remembered(self._networks, key, lambda: self.elastic.network(candidate).to("meta").train())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws from here on follow from the seed; what the caller draws afterwards does not."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
