"""Training of shared weights as once-for-all networks are trained (Cai et al. 2020, arXiv:1908.09791, section 3.3).

The largest network learns from the labels alone and is then frozen as the teacher. In phases of their own, each with
a new cycle of the learning rate, kernels, then depths, then widths and expansions open; each step sums the gradients of
a few networks drawn by chance, of which there are more the more is open (1, 2 and 4 in the published code), each with
the sum of the labels' loss and of the teacher's. Neither the largest nor the smallest is in every step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from bitwright.nas.elastic import Elastic, shared_state
from bitwright.nas.moves import largest_candidate
from bitwright.nas.space import Candidate
from bitwright.nas.supernet import Task
from bitwright.nas.supernet.optimization import one_cycle
from bitwright.nas.supernet.task import Batch
from bitwright.qat.checkpoint import write_whole


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Parameters whose names match are open; `networks` are trained in each of `steps` steps."""

    open: tuple[str, ...]
    networks: int
    steps: int


def phases(passes: int) -> tuple[Phase, ...]:
    """The published order, with a quarter of all passes through networks for each phase."""
    part = passes // 4
    kernels, depths = ("kernel*",), ("kernel*", "depth*")
    return (
        Phase(open=(), networks=1, steps=part),
        Phase(open=kernels, networks=1, steps=part),
        Phase(open=depths, networks=2, steps=part // 2),
        Phase(open=("*",), networks=4, steps=part // 4),
    )


def train_once_for_all(elastic: Elastic, task: Task, folder: Path, *, passes: int, lr: float, seed: int) -> None:
    """Trains `elastic.largest` in place; phases that are done are read from the folder.

    Args:
        elastic: the networks.
        task: what they learn.
        folder: where weights are kept, phase by phase.
        passes: forward and backward passes through networks, in all.
        lr: the highest rate of each cycle.
        seed: of the order of samples and of the networks drawn.
    """
    teacher: nn.Module | None = None
    for index, phase in enumerate(phases(passes)):
        file = folder / f"phase-{index}.pt"
        if file.exists():
            elastic.largest.load_state_dict(torch.load(file, weights_only=True)["weights"])
        else:
            _train(elastic, task, phase, teacher, lr=lr, seed=1_000 * seed + index)
            write_whole(file, {"weights": elastic.largest.state_dict()})
        if teacher is None:
            teacher = copy.deepcopy(elastic.largest).eval()


def _train(elastic: Elastic, task: Task, phase: Phase, teacher: nn.Module | None, *, lr: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    optimizer, rate = one_cycle(elastic.largest.parameters(), lr=lr, weight_decay=1e-2, steps=phase.steps)
    elastic.largest.train()
    for (arguments, labels), _ in zip(_endless(task, seed), range(phase.steps), strict=False):
        optimizer.zero_grad(set_to_none=True)
        for _ in range(phase.networks):
            if teacher is None:
                loss = task.loss(elastic.largest(*arguments), labels)
            else:
                candidate = _draw(elastic, phase, generator)
                network = elastic.network(candidate).train()
                outputs = functional_call(network, shared_state(elastic, candidate), arguments)
                with torch.no_grad():
                    taught = teacher(*arguments)
                loss = task.loss(outputs, labels) + task.distil(outputs, taught)
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()


def _endless(task: Task, seed: int) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from task.batches(1_000 * seed + epoch)
        epoch += 1


def _draw(elastic: Elastic, phase: Phase, generator: np.random.Generator) -> Candidate:
    values = dict(largest_candidate(elastic.space).values)
    for each in elastic.space.parameters:
        if any(fnmatchcase(each.name, glob) for glob in phase.open):
            values[each.name] = each.choices[int(generator.integers(len(each.choices)))]
    return Candidate(elastic.space.canonical(values))
