"""What a candidate scores when it is trained by itself: the truth that inherited scores are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from bitwright.nas.space import Candidate, SearchSpace, hash_of
from bitwright.nas.supernet.kept_scores import KeptScores
from bitwright.nas.supernet.optimization import one_cycle
from bitwright.nas.supernet.recalibration import recalibrate
from bitwright.nas.supernet.settings import SupernetSettings
from bitwright.nas.supernet.task import Task
from bitwright.quant.errors import InputError

Build = Callable[[Candidate, int], nn.Module]
_EPOCHS_APART = 1_000


@dataclass(frozen=True, kw_only=True)
class StandAloneAccuracy:
    """A callable: candidate and seed to score, each training kept by itself.

    The same optimizer, data, score and treatment of batch norms as the shared weights get; the settings' `random`,
    `labels` and `shrinking` have no meaning here.

    Attributes:
        space: of the candidates.
        build: a network with fresh weights that the seed decides.
        task: what it learns.
        settings: `epochs`, `lr`, `weight_decay` and `calibration` are taken.
        folder: where scores are kept; one for each build, task and settings.
    """

    space: SearchSpace
    build: Build
    task: Task
    settings: SupernetSettings
    folder: Path

    def __call__(self, candidate: Candidate, seed: int) -> float:
        """The task's score after training with this seed."""
        name = f"{hash_of(dict(self.space.architecture(candidate)))}-{seed}"
        return KeptScores(self.folder).score(name, lambda: self.task.score(self.trained(candidate, seed)))

    def trained(self, candidate: Candidate, seed: int) -> nn.Module:
        """The network, trained, in eval mode.

        Raises:
            InputError: the loss is no longer finite.
        """
        network, asked = self.build(candidate, seed).train(), self.settings
        optimizer, rate = one_cycle(
            network.parameters(), lr=asked.lr, weight_decay=asked.weight_decay, steps=asked.epochs * self.task.steps
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for epoch in range(asked.epochs):
                for step, (arguments, labels) in enumerate(self.task.batches(seed * _EPOCHS_APART + epoch)):
                    loss = self.task.loss(network(*arguments), labels)
                    if not torch.isfinite(loss):
                        raise InputError(
                            f"({candidate}) alone, pass {epoch}, step {step}: the loss became {float(loss)}"
                        )
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    rate.step()
        recalibrate(network, (arguments for arguments, _ in islice(self.task.batches(0), asked.calibration)))
        return network
