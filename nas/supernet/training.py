"""Trains all networks of a space at once, in weights that they share; goes on where it was cut, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from bitwright.nas.elastic import Elastic
from bitwright.nas.supernet.checkpoint import FILE, identity_of, read_supernet, write_supernet
from bitwright.nas.supernet.optimization import one_cycle
from bitwright.nas.supernet.sandwich import LossNotFinite, Sandwich
from bitwright.nas.supernet.settings import SupernetSettings
from bitwright.nas.supernet.shrinking import check_shrinking, drawn
from bitwright.nas.supernet.task import Batch, Task
from bitwright.quant.errors import InputError

# Seeds of passes of one training lie side by side, those of two so far apart, or further where there are more passes.
_EPOCHS_APART = 1_000


class Scalars(Protocol):
    """What is asked of a `SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Takes one number."""


def train_supernet(
    elastic: Elastic, task: Task, settings: SupernetSettings, folder: Path, *, writer: Scalars | None = None
) -> Path:
    """Trains `elastic.largest` in place, in training mode, from its present weights or from the folder's checkpoint.

    The checkpoint is whole at any moment. Batches, networks and what layers draw by chance are seeded by the step, so
    a training that is killed and started again ends with the same bits as one that is not. One that has ended is read.

    Args:
        elastic: the networks.
        task: what they learn.
        settings: how.
        folder: gets `supernet.pt`, for `load_supernet`.
        writer: gets `supernet/…`: the losses of the largest, the smallest, those drawn by chance, and the rate.

    Returns:
        The file.

    Raises:
        InputError: a loss is no longer finite (names the step and the candidate; the last checkpoint stays), or the
            folder holds another training's checkpoint.
    """
    check_shrinking(elastic.space, settings.shrinking)
    training = _Training(elastic, task, settings, folder / FILE)
    if training.path.exists():
        training.resume()
    with torch.random.fork_rng():  # building networks draws; the caller's numbers are no part of this
        training.run(writer)
    return training.path


class _Training:
    def __init__(self, elastic: Elastic, task: Task, settings: SupernetSettings, path: Path) -> None:
        self.elastic, self.task, self.settings, self.path = elastic, task, settings, path
        self.identity = identity_of(elastic, task, settings)
        self.sandwich = Sandwich(elastic, task, labels=settings.labels)
        self.step, self.steps = 0, settings.epochs * task.steps
        self.optimizer, self.rate = one_cycle(
            elastic.largest.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, steps=self.steps
        )

    def run(self, writer: Scalars | None) -> None:
        self.elastic.largest.train()
        for batch in self.batches():
            self.take(batch, writer)
            if self.step % self.settings.checkpoint_every == 0 or self.step == self.steps:
                self.save()

    def batches(self) -> Iterator[Batch]:
        """What is left of the pass that the step lies in, then the passes that are left."""
        begun, done = divmod(self.step, self.task.steps)
        for epoch in range(begun, self.settings.epochs):
            seed = self.settings.seed * max(_EPOCHS_APART, self.settings.epochs) + epoch
            yield from islice(self.task.batches(seed), done if epoch == begun else 0, None)
            if self.step != (epoch + 1) * self.task.steps:
                raise InputError(
                    f"supernet: pass {epoch} ended at step {self.step}; the task says that passes have "
                    f"{self.task.steps} batches"
                )

    def take(self, batch: Batch, writer: Scalars | None) -> None:
        """One step of the optimizer."""
        candidates = drawn(self.elastic.space, self.settings, self.step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        try:
            losses = self.sandwich.backward(candidates, batch, seed=self.settings.seed * self.steps + self.step)
        except LossNotFinite as error:
            raise InputError(
                f"supernet: step {self.step}: {error}; a smaller supernet.lr than {self.settings.lr} may help"
            ) from None
        self.optimizer.step()
        if writer is not None:
            self.report(writer, losses)
        self.rate.step()
        self.step += 1

    def report(self, writer: Scalars, losses: list[float]) -> None:
        """Curves over steps; while nothing may shrink, the largest is alone."""
        largest, *others = losses
        curves = {"loss_largest": largest, "lr": float(self.rate.get_last_lr()[0]), "networks": float(len(losses))}
        if others:
            curves["loss_smallest"] = others[0]
        if others[1:]:
            curves["loss_random"] = sum(others[1:]) / len(others[1:])
        for name, value in curves.items():
            writer.add_scalar(f"supernet/{name}", value, self.step)

    def save(self) -> None:
        """The weights, and while there are steps left what it takes to go on."""
        weights = self.elastic.largest.state_dict()
        if broken := [name for name, each in weights.items() if not bool(torch.isfinite(each).all())]:
            raise InputError(
                f"supernet: step {self.step}: {broken[0]} is no longer finite; the last checkpoint stays; a smaller "
                f"supernet.lr than {self.settings.lr} may help"
            )
        content: dict[str, Any] = {"weights": weights}
        if self.step < self.steps:
            content |= {"optimizer": self.optimizer.state_dict(), "rate": self.rate.state_dict()}
        write_supernet(self.path, identity=self.identity, step=self.step, steps=self.steps, content=content)

    def resume(self) -> None:
        content = read_supernet(self.path, self.identity)
        self.step = content["step"]
        self.elastic.largest.load_state_dict(content["weights"])
        if self.step < self.steps:
            self.optimizer.load_state_dict(content["optimizer"])
            self.rate.load_state_dict(content["rate"])
