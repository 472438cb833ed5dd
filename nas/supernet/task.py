"""What shared weights learn: data, loss, imitation, score. `experiments` provides it; nothing here knows data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import nn

Arguments = tuple[Any, ...]
Batch = tuple[Arguments, Any]


class Task(Protocol):
    """A task with its data. Picklable where searches run on several machines: it travels to workers."""

    @property
    def steps(self) -> int:
        """How many batches one pass over the training samples has."""

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """What scores follow from, by name: the data, the batches, the loss, the metric."""

    def batches(self, seed: int) -> Iterable[Batch]:
        """One pass over the training samples: (arguments of `forward`, labels), in an order that the seed decides.

        The same seed gives the same batches in any process; so a training that was cut off goes on as it would have.
        """

    def loss(self, outputs: Any, labels: Any) -> torch.Tensor:
        """Of what a network returned, against the labels; a scalar."""

    def distil(self, outputs: Any, teacher: Any) -> torch.Tensor:
        """Of what a network returned, against what the largest one did for the same samples; least where both agree."""

    def score(self, network: nn.Module) -> float:
        """Of a network in eval mode on validation samples, which are neither trained on nor tested with."""
