"""A plain training loop: cross-entropy, AdamW, one cycle of the learning rate. Short networks need no more."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from bitwright.experiments.datasets import Data, Split
from bitwright.experiments.inputs import ToArguments
from bitwright.experiments.metrics import first_tensor
from bitwright.quant.errors import InputError

# Smith & Topin 2019: the rate rises over the first part of the steps and falls along a cosine over the rest.
_RISING = 0.25

Loss = Callable[[torch.Tensor, torch.Tensor, tuple[Any, ...]], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train; see `recipe.Train`."""

    epochs: int
    batch: int
    lr: float
    weight_decay: float = 1e-2
    label_smoothing: float = 0.0

    def lr_at(self, progress: float) -> float:
        """The learning rate at `progress` in [0, 1]."""
        if progress < _RISING:
            return self.lr * (0.1 + 0.9 * progress / _RISING)
        return self.lr * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * (progress - _RISING) / (1 - _RISING))))


@dataclass(frozen=True, kw_only=True)
class TrainedEpoch:
    """One pass over the data."""

    loss: float
    lr: float
    seconds: float


def fit(
    model: torch.nn.Module,
    data: Data,
    read: ToArguments,
    schedule: Schedule,
    *,
    seed: int,
    optimizer: torch.optim.Optimizer | None = None,
    after_step: Callable[[], None] | None = None,
    loss_of: Loss | None = None,
) -> Iterator[TrainedEpoch]:
    """Trains in place; yields after each epoch, with the model in training mode.

    Args:
        model: the network; its first floating-point output are the logits [N, classes, …].
        data: gives (inputs, labels).
        read: takes the network's arguments out of a batch.
        schedule: how long and how fast.
        seed: decides the order of the samples.
        optimizer: AdamW over all parameters when not given.
        after_step: called after each step of the optimizer.
        loss_of: the loss of (logits, labels, arguments); cross-entropy when not given.

    Raises:
        InputError: the data have no labels, their classes do not fit the network, or the loss is no longer finite.
    """
    optimizer = optimizer or adamw(model, schedule)
    steps = math.ceil((data.splits.get(Split.TRAIN) or 0) / schedule.batch)
    for epoch in range(schedule.epochs):
        began, total, count = time.monotonic(), 0.0, 0
        model.train()
        for index, batch in enumerate(data.loader(Split.TRAIN, schedule.batch, seed * 1_000 + epoch)):
            rate = schedule.lr_at((epoch + min(index / max(steps, index + 1), 1.0)) / schedule.epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            loss = _step(model, data, read(batch), labels_of(batch), schedule, optimizer, loss_of)
            if after_step is not None:
                after_step()
            total, count = total + loss, count + 1
        steps = count
        yield TrainedEpoch(loss=total / max(1, count), lr=rate, seconds=time.monotonic() - began)


def adamw(model: torch.nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW over all parameters."""
    return torch.optim.AdamW(model.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay)


def _step(
    model: torch.nn.Module,
    data: Data,
    arguments: tuple[Any, ...],
    labels: torch.Tensor,
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    loss_of: Loss | None,
) -> float:
    logits = first_tensor(model(*arguments))
    check_classes(logits, data)
    if loss_of is not None:
        loss = loss_of(logits, labels, arguments)
    else:
        loss = loss_by_labels(logits, labels, data, label_smoothing=schedule.label_smoothing)
    if not torch.isfinite(loss):
        raise InputError(f"training: the loss became {loss.item()}; a smaller train.lr than {schedule.lr} may help")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def loss_by_labels(
    logits: torch.Tensor, labels: torch.Tensor, data: Data, *, label_smoothing: float = 0.0
) -> torch.Tensor:
    """The loss of the data's task, a scalar: cross-entropy of classes where there is no other."""
    if data.task is not None:
        return data.task.loss(logits, labels)
    ignored = -100 if data.ignore_label is None else data.ignore_label
    return cross_entropy(logits, labels, label_smoothing=label_smoothing, ignore_index=ignored)


def labels_of(batch: Any) -> torch.Tensor:
    """The labels of an (inputs, labels) batch.

    Raises:
        InputError: the batch has another form; training and the built-in metrics need this one.
    """
    if isinstance(batch, tuple | list) and len(batch) >= 2 and isinstance(batch[1], torch.Tensor):
        return batch[1]
    if isinstance(batch, Mapping):
        for key in ("label", "labels", "target", "targets"):
            if isinstance(batch.get(key), torch.Tensor):
                labels: torch.Tensor = batch[key]
                return labels
    raise InputError(
        f"data: a batch is {type(batch).__name__} without labels; training and built-in metrics need (inputs, labels) "
        "or a dict with the key labels; give evaluate.entry for anything else"
    )


def check_classes(logits: torch.Tensor, data: Data) -> None:
    """Compares the network's outputs with the classes of the data.

    Raises:
        InputError: they differ.
    """
    if data.classes is not None and (logits.dim() < 2 or logits.shape[1] != data.classes):
        outputs = logits.shape[1] if logits.dim() > 1 else 1
        raise InputError(
            f"the data have {data.classes} classes, the model's output {list(logits.shape)} has {outputs}; "
            "give the model as many outputs as there are classes"
        )
