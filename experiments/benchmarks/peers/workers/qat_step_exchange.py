"""What every side does alike when steps of training are timed: the batch, the loss, the optimizer, the clock.

A worker is a process that waits: for each line of its input it takes so many steps of every network in turn, the float
one first, and answers with their times. So all sides take turns in one run, and each side's steps are paired with float
steps of the same process. Torch alone, since every peer's environment has to run it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import torch
from networks import load_network
from torch.nn import functional as F

CLASSES = 10
# So small that the networks stay what they are over all steps, and the same in every process.
LR = 1e-7
_WARM = 3


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which steps.

    Attributes:
        network: see `networks.load_network`.
        library: the folder with torchvision.
        shape: of a batch.
        settings: which of the side's settings to take steps of.
        weight_bits: 8.
        activation_bits: 8.
    """

    network: str
    library: str
    shape: tuple[int, ...]
    settings: tuple[str, ...]
    weight_bits: int = 8
    activation_bits: int = 8

    def calibration(self) -> list[torch.Tensor]:
        """Batches of noise: what values are does not change what a step costs."""
        return [torch.randn(self.shape, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """A network with a side's quantization in place, in training mode.

    Attributes:
        forward: in training.
        parameters: what the optimizer gets.
        attach: called with the optimizer; what it returns is called after each step.
    """

    forward: Callable[[torch.Tensor], torch.Tensor]
    parameters: list[torch.nn.Parameter]
    attach: Callable[[torch.optim.Optimizer], Callable[[], object]] = field(default=lambda _: lambda: None)


Prepare = Callable[[torch.nn.Module, Request], Trainee]


def serve(packages: tuple[str, ...], settings: Mapping[str, Prepare]) -> None:
    """Answers until its input ends; the last answer to `memory` is what a step holds at most.

    Args:
        packages: whose versions are reported.
        settings: how each setting puts the side's quantization into a float network.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints is no answer
    request = Request(**json.loads(Path(sys.argv[1]).read_text()))
    torch.set_num_threads(1)
    steps = {"float": _step(_plain(_float(request)), request)}
    for name in request.settings:
        steps[name] = _step(settings[name](_float(request), request), request)
    for step in steps.values():
        for _ in range(_WARM):
            step()
    print(json.dumps({"versions": {name: metadata.version(name) for name in packages}}), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() == "memory":
            answer: object = {name: _peak_bytes(step) for name, step in steps.items()}
        else:
            answer = [{name: _seconds(step) for name, step in steps.items()} for _ in range(int(line))]
        print(json.dumps(answer), file=answers, flush=True)


def _float(request: Request) -> torch.nn.Module:
    torch.manual_seed(0)
    return load_network(request.network, request.library).requires_grad_(True).train()


def _plain(network: torch.nn.Module) -> Trainee:
    return Trainee(forward=network, parameters=list(network.parameters()))


def _step(trainee: Trainee, request: Request) -> Callable[[], None]:
    batch, _ = request.calibration()
    optimizer = torch.optim.SGD(trainee.parameters, lr=LR, momentum=0.9)
    after_step = trainee.attach(optimizer)
    labels = torch.arange(len(batch)) % CLASSES

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(trainee.forward(batch), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        after_step()

    return step


def _seconds(step: Callable[[], None]) -> float:
    """Processor time: with one thread that of the step, whatever else the machine does."""
    start = time.process_time()
    step()
    return time.process_time() - start


def _peak_bytes(step: Callable[[], None]) -> int:
    """The most bytes of tensors that a step holds above what it began with, by the profiler's record of allocations."""
    step()
    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
