"""A family of tiny networks with shared weights, on data that a seed makes up.

Run as a program, it trains in the folder that it is given, and kills itself before a step.
"""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from bitwright.nas.elastic import Share
from bitwright.nas.space import Candidate, Parameter, Value, spelled_as_declared
from bitwright.nas.supernet import SupernetSettings, train_supernet
from bitwright.nas.supernet.task import Batch
from bitwright.qat.distillation import distillation_loss

CLASSES = 4


class Tiny(nn.Module):
    """Two convolutions, the first of `kernel`, with `width` channels between them; the second block may be absent."""

    def __init__(self, *, width: int, kernel: int, deep: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.inner = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)) if deep else None
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.stem(x)))
        if self.inner is not None:
            y = torch.relu(y + self.inner(y))
        return self.classifier(self.drop(y.mean((2, 3))))


@dataclass(frozen=True)
class Space:
    parameters: tuple[Parameter, ...] = (
        Parameter(name="width", choices=(2, 4, 8), ordered=True),
        Parameter(name="kernel", choices=(1, 3, 5), ordered=True),
        Parameter(name="deep", choices=(False, True), ordered=True),
        Parameter(name="format", choices=("int8", "float32"), ordered=False),
    )

    def canonical(self, values: Mapping[str, Value]) -> Mapping[str, Value]:
        return spelled_as_declared(self.parameters, values)

    def architecture(self, candidate: Candidate) -> Mapping[str, Value]:
        return {name: value for name, value in candidate.values.items() if name != "format"}

    def formats(self, candidate: Candidate, model: nn.Module) -> Mapping[str, str]:
        return {}


class TinyElastic:
    def __init__(self, seed: int = 0, dropout: float = 0.0) -> None:
        self.space, self.dropout = Space(), dropout
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.largest = Tiny(width=8, kernel=5, deep=True, dropout=dropout)

    def network(self, candidate: Candidate) -> nn.Module:
        return Tiny(**self.space.architecture(candidate), dropout=self.dropout)

    def shares(self, candidate: Candidate) -> Mapping[str, Share]:
        width, border = int(candidate.values["width"]), (5 - int(candidate.values["kernel"])) // 2
        channels, kernel = slice(0, width), slice(border, 5 - border)
        shares = {}
        for name, tensor in Tiny(**self.space.architecture(candidate)).state_dict().items():
            places = {0: channels} if tensor.dim() else {}
            if name == "stem.weight":
                places |= {2: kernel, 3: kernel}
            if name == "inner.0.weight":
                places |= {1: channels}
            if name == "classifier.weight":
                places = {1: channels}
            if name == "classifier.bias":
                places = {}
            shares[name] = Share(tensor=name, places=places)
        return shares


@dataclass
class TinyTask:
    """Which of four templates a noisy 6×6 picture shows."""

    steps: int = 6
    batch: int = 16
    seen: list[int] = field(default_factory=list)
    poisoned: int | None = None

    @property
    def fingerprint(self) -> Mapping[str, str]:
        return {"data": "made up", "batch": str(self.batch)}

    def samples(self, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(7)
        templates = torch.randn(CLASSES, 1, 6, 6, generator=generator)
        generator.manual_seed(seed)
        labels = torch.randint(CLASSES, (count,), generator=generator)
        return templates[labels] + 0.8 * torch.randn(count, 1, 6, 6, generator=generator), labels

    def batches(self, seed: int) -> Iterator[Batch]:
        for index in range(self.steps):
            images, labels = self.samples(self.batch, 1_000 * seed + index)
            self.seen.append(1_000 * seed + index)
            yield (images * float("nan") if index == self.poisoned else images,), labels

    def loss(self, outputs: Any, labels: Any) -> torch.Tensor:
        return F.cross_entropy(outputs, labels)

    def distil(self, outputs: Any, teacher: Any) -> torch.Tensor:
        return distillation_loss(outputs, teacher)

    def score(self, network: nn.Module) -> float:
        images, labels = self.samples(200, 999_999)
        with torch.no_grad():
            return float((network(images).argmax(1) == labels).float().mean())


def candidate(width: int = 8, kernel: int = 5, deep: bool = True, fmt: str = "int8") -> Candidate:
    return Candidate(Space().canonical({"width": width, "kernel": kernel, "deep": deep, "format": fmt}))


def settings(**changes: Any) -> SupernetSettings:
    shrinking = {"kernel": (0.0, 0.2), "width": (0.2, 0.6)}
    return SupernetSettings(**{"epochs": 3, "lr": 0.02, "shrinking": shrinking, "checkpoint_every": 1, **changes})


class Killed(BaseException):
    """As sudden as a signal, in this process."""


@dataclass
class Deadly(TinyTask):
    """Ends all before its `lives`-th batch; by SIGKILL where it is run as a program."""

    lives: int = 0
    signalled: bool = False

    def batches(self, seed: int) -> Iterator[Batch]:
        for batch in super().batches(seed):
            self.lives -= 1
            if self.lives < 0 and self.signalled:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.lives < 0:
                raise Killed
            yield batch


if __name__ == "__main__":
    train_supernet(
        TinyElastic(dropout=0.1), Deadly(lives=int(sys.argv[2]), signalled=True), settings(), Path(sys.argv[1])
    )
