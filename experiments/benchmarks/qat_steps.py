"""Steps of quantization-aware training, ours and the peers', each beside float steps of its own process.

All sides are processes that stand side by side and take turns, so that what the machine does meanwhile meets all.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.asking import require_peer, script
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, OURS, install_library, interpreter
from bitwright.experiments.benchmarks.places import checkout
from bitwright.quant.errors import InputError

RESNET20, MOBILENET = "ResNet-20", "MobileNetV2"
SHAPES = {RESNET20: (32, 3, 32, 32), MOBILENET: (8, 3, 224, 224)}
FLOAT = "float"
# Settings of ours, as the worker names them: what is quantized, how scales come about, what batch norms do.
WHOLE, LAYERS = "whole scheme", "layers"
CLIPPED, LSQ = "clipped gradient", "LSQ"
FROZEN, LIVE = "batch norms frozen", "batch norms live"
MODELOPT, KEPT = "modelopt", "batch norms kept"
SETTINGS: Mapping[str, Sequence[str]] = {
    OURS: [f"{what}, {how}, {norms}" for what in (WHOLE, LAYERS) for how in (CLIPPED, LSQ) for norms in (FROZEN, LIVE)],
    MODELOPT: [KEPT, "batch norms folded"],
    "torchao": ["pt2e"],
    "aimet": ["quantsim"],
    "brevitas": ["per channel"],
}


class Side:
    """A worker that waits for what it is asked."""

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name, self._process, self._log = name, process, log

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of its packages: the first that it says, once it is ready."""
        found: dict[str, str] = self._answer()["versions"]
        return found

    def ask(self, question: str) -> Any:
        """`memory`, or how many rounds of steps to take."""
        assert self._process.stdin is not None and self.versions
        print(question, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            last = "\n".join(self._log.read_text().strip().splitlines()[-8:])
            raise InputError(f"peer {self.name!r} stopped in a training step (log: {self._log}):\n{last}")
        return json.loads(line)


@contextmanager
def sides(bench: Bench, network: str, settings: Mapping[str, Sequence[str]] = SETTINGS) -> Iterator[dict[str, Side]]:
    """Every side's process, ready to take steps of a network; all end with the block.

    Raises:
        InputError: a peer is not installed, or failed; the message ends with its last lines.
    """
    for peer in settings:
        require_peer(peer, bench.home)
    described = _described(bench, network)
    with ExitStack() as stack:
        running = {peer: _started(stack, bench, peer, network, described, names) for peer, names in settings.items()}
        for side in running.values():
            assert side.versions  # all prepare at once; none is timed before all are ready
        yield running


def ratios(side: Side, rounds: int) -> dict[str, list[float]]:
    """Each setting's step ÷ the float step of the same round."""
    times: list[dict[str, float]] = side.ask(str(rounds))
    return {name: [each[name] / each[FLOAT] for each in times] for name in times[0] if name != FLOAT}


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and its 95 % percentile bootstrap interval."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (2000, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return float(np.median(values)), float(low), float(high)


def _described(bench: Bench, network: str) -> str:
    """The network as workers load it: torchvision's by name, ResNet-20 by a description with fresh weights."""
    install_library(bench.home)
    if network == MOBILENET:
        return "mobilenet_v2"
    from bitwright.experiments.models.residual_blocks import ResNet

    folder = bench.cache / "qat_steps"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"blocks": 3, "width": 1.0, "classes": 10}
    torch.manual_seed(0)
    torch.save(ResNet(**settings).state_dict(), folder / "resnet20.pt")  # type: ignore[arg-type]
    source = checkout() / "experiments" / "models" / "residual_blocks.py"
    told = {"source": str(source), "name": "ResNet", "settings": settings, "weights": str(folder / "resnet20.pt")}
    file = folder / "resnet20.json"
    file.write_text(json.dumps(told))
    return str(file)


def _started(stack: ExitStack, bench: Bench, peer: str, network: str, described: str, settings: Sequence[str]) -> Side:
    folder = bench.cache / "qat_steps" / f"{peer}-{network}"
    folder.mkdir(parents=True, exist_ok=True)
    asked, log = folder / "request.json", folder / "log.txt"
    request = {"network": described, "library": str(bench.home / LIBRARY), "shape": SHAPES[network]}
    asked.write_text(json.dumps({**request, "settings": list(settings)}))
    limits = {"OMP_NUM_THREADS": "1", "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [str(interpreter(peer, bench.home)), str(script(f"{peer}_qat_step")), str(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stack.enter_context(log.open("w")),
        text=True,
        env={**os.environ, **limits},
    )
    stack.callback(_ended, process)
    return Side(peer, process, log)


def _ended(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
