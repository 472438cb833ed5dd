"""What every side of a contest in quantization-aware training does alike: the data, the loop, the loss, the score.

The float network is the teacher (Hinton et al. 2015, T = 1), so that labels are only scored with. AdamW, the rate falls
along half a cosine. Torch and NumPy alone, since every peer's environment has to run it.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import load_network
from torch.nn import functional as F

CALIBRATED = 128  # samples of the training ones, the first
_SCORED_AT_ONCE = 50


@dataclass(frozen=True, kw_only=True)
class Request:
    """One training.

    Attributes:
        network: the description of a float network trained here; see `networks.load_network`.
        library: the folder with torchvision.
        data: the folder with `PART-images.npy` and `PART-labels.npy`, PART train, validation or test.
        part: that is scored.
        weight_bits: of every layer.
        activation_bits: of every activation that the side quantizes.
        epochs: over the training samples.
        batch: samples a step.
        lr: the largest rate.
        seed: of the order of samples.
        classes: of the labels.
        ignore: the label that is not scored.
        metric: top1 or miou.
        folder: where results may go.
    """

    network: str
    library: str
    data: str
    part: str
    weight_bits: int
    activation_bits: int
    epochs: int
    batch: int
    lr: float
    seed: int
    classes: int
    ignore: int
    metric: str
    folder: str = ""

    def images(self, part: str) -> torch.Tensor:
        """float32 [samples, 3, H, W]."""
        return torch.from_numpy(np.load(Path(self.data) / f"{part}-images.npy"))

    def labels(self, part: str) -> torch.Tensor:
        """int64 [samples, ...]."""
        return torch.from_numpy(np.load(Path(self.data) / f"{part}-labels.npy"))

    def calibration(self) -> list[torch.Tensor]:
        """The first training samples in batches."""
        return list(self.images("train")[:CALIBRATED].split(16))  # type: ignore[no-untyped-call]


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """A network with a side's quantization in place.

    Attributes:
        forward: in training.
        parameters: what the optimizer gets.
        attach: called with the optimizer before the first step; what it returns is called after each step.
        evaluate: switches to what is deployed and returns its forward.
        train: switches (back) to training.
    """

    forward: Callable[[torch.Tensor], torch.Tensor]
    parameters: Iterable[torch.nn.Parameter]
    evaluate: Callable[[], Callable[[torch.Tensor], torch.Tensor]]
    train: Callable[[], Any]
    attach: Callable[[torch.optim.Optimizer], Callable[[], Any]] = lambda _: lambda: None


def serve(packages: tuple[str, ...], prepare: Callable[[torch.nn.Module, Request], Trainee]) -> None:
    """Runs the training named on the command line and writes its score.

    Args:
        packages: whose versions are reported.
        prepare: puts the side's quantization into a float network, calibrated.
    """
    request = Request(**json.loads(Path(sys.argv[1]).read_text()))
    torch.manual_seed(request.seed)
    teacher = load_network(request.network, request.library)
    start = time.perf_counter()
    trainee = prepare(load_network(request.network, request.library).requires_grad_(True), request)
    prepared = time.perf_counter()
    _fit(trainee, teacher, request)
    trained = time.perf_counter()
    forward = trainee.evaluate()
    answer = {
        "score": _score(forward, request),
        "prepare_s": prepared - start,
        "train_s": trained - prepared,
        "versions": {name: metadata.version(name) for name in packages},
        "request": asdict(request),
    }
    Path(sys.argv[2]).write_text(json.dumps(answer, indent=1))


def _fit(trainee: Trainee, teacher: torch.nn.Module, request: Request) -> None:
    images = request.images("train")
    optimizer = torch.optim.AdamW(list(trainee.parameters), lr=request.lr, weight_decay=1e-4)
    after_step = trainee.attach(optimizer)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    steps, step = request.epochs * (len(images) // request.batch), 0
    generator = torch.Generator().manual_seed(request.seed)
    trainee.train()
    for _ in range(request.epochs):
        order = torch.randperm(len(images), generator=generator)
        for rows in order.split(request.batch):  # type: ignore[no-untyped-call]
            if len(rows) < request.batch:
                continue
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * step / steps))
            batch = images[rows]
            with torch.no_grad():
                wanted = F.log_softmax(teacher(batch), dim=1)
            given = F.log_softmax(trainee.forward(batch), dim=1)
            loss = (wanted.exp() * (wanted - given)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            after_step()
            step += 1


@torch.no_grad()
def _score(forward: Callable[[torch.Tensor], torch.Tensor], request: Request) -> float:
    """top1, or the mean over classes of intersection over union, in percent."""
    images, labels = request.images(request.part), request.labels(request.part)
    parts = images.split(_SCORED_AT_ONCE)  # type: ignore[no-untyped-call]
    decided = torch.cat([forward(part).argmax(1) for part in parts])
    counted = labels != request.ignore
    if request.metric == "top1":
        return 100.0 * float((decided == labels)[counted].double().mean())
    pairs = labels[counted] * request.classes + decided[counted]
    table = torch.bincount(pairs, minlength=request.classes**2).view(request.classes, -1).double()
    union = table.sum(0) + table.sum(1) - table.diagonal()
    return 100.0 * float((table.diagonal() / union)[union > 0].mean())
