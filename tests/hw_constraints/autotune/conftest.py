"""A small network with everything that sites are found by, and a laboratory whose clock is a formula."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.hw_constraints.autotune.decision import Candidates
from bitwright.hw_constraints.autotune.fidelity import Fidelity
from bitwright.hw_constraints.autotune.journal import Journal
from bitwright.hw_constraints.autotune.laboratory import FLOAT, Budget, Effort, Laboratory
from bitwright.hw_constraints.autotune.placements import Placements
from bitwright.hw_constraints.autotune.sites import find_sites
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize

SHAPE = (1, 3, 16, 16)


class Gate(nn.Module):
    """Squeeze and excitation, under names that say nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(channels, 4, 1)
        self.b = nn.Conv2d(4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.b(torch.relu(self.a(y))))


class Network(nn.Module):
    """Stem, a gated block with SiLU, two equal residual blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.SiLU())
        self.gate = Gate(8)
        self.bodies = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 1)) for _ in range(2)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.gate(self.deep(self.stem(x)))
        for body in self.bodies:
            x = x + body(x)
        return self.head(x.mean((2, 3)))


def pictures(count: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


@pytest.fixture(scope="session")
def candidates() -> Candidates:
    torch.manual_seed(0)
    captured = capture(Network().eval(), (torch.zeros(SHAPE),))
    quantized = quantize(captured, load_target("x86-vnni").scheme(), pictures(8, 1))
    sites = find_sites(quantized.captured.graph, quantized.plan)
    return Candidates(quantized=quantized, reference=fold_batch_norm(captured), sites=sites)


@pytest.fixture(scope="session")
def samples() -> Callable[[int, int], list[dict[str, np.ndarray]]]:
    return lambda count, seed: [{"x": each.numpy()} for each in pictures(count, seed)]


class SimulatedLaboratory(Laboratory):
    """Times by a formula: each site's own time, a price for each conversion, and noise from process to process."""

    def __init__(
        self,
        candidates: Candidates,
        folder: Path,
        *,
        float_us: Mapping[str, float],
        int8_us: Mapping[str, float],
        price: float = 0.0,
        noise: float = 0.0,
        accuracy: Callable[[str], Fidelity] | None = None,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(
            candidates=candidates, runtime="onnxruntime", threads=1, samples=(), judge=lambda file, samples: None,
            journal=Journal(folder / "tries.jsonl", {"network": "simulated"}), budget=budget or Budget(), folder=folder,
        )  # fmt: skip
        self._times = {FLOAT: float_us, "int8": int8_us}
        self._price, self._noise, self._fidelity = price, noise, accuracy
        self._random = np.random.default_rng(0)
        self.measured: list[tuple[str, ...]] = []

    def true_us(self, name: str) -> float:
        everything = frozenset(self.candidates.sites.by_name)
        floats = everything if name == FLOAT else self.decision(name).floats
        own = sum(self._times[FLOAT if site in floats else "int8"][site] for site in everything)
        edges = self.candidates.sites.edges.items()
        return 10.0 + own + self._price * sum(count for (a, b), count in edges if (a in floats) != (b in floats))

    def measure(self, names: Sequence[str], effort: Effort) -> Placements:
        self.measured.append(tuple(names))
        processes = []
        for _ in range(effort.processes):
            placed = {name: self.true_us(name) * float(np.exp(self._random.normal(0, self._noise))) for name in names}
            processes.append({name: list(us * np.exp(self._random.normal(0, 1e-4, 20))) for name, us in placed.items()})
        return Placements(times_us=tuple(processes))

    def _site_times(self, name: str) -> Mapping[str, float]:
        return self._times[FLOAT if name == FLOAT else "int8"]

    def fidelity(self, name: str) -> Fidelity:
        return self._fidelity(name) if self._fidelity else Fidelity(agreement=(), sqnr_db=(30.0,) * 20)

    def file(self, name: str) -> Path:
        raise AssertionError("a simulated laboratory writes no files")


@pytest.fixture
def laboratory(candidates: Candidates, tmp_path: Path) -> Callable[..., Any]:
    def make(**options: Any) -> SimulatedLaboratory:
        return SimulatedLaboratory(candidates, tmp_path, **options)

    return make
