import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.qat_result import QATEpoch, QATResult
from bitwright.experiments.read_run import read_record
from bitwright.experiments.record import Figure, Record, StageRecord
from bitwright.experiments.run import run_recipe
from bitwright.experiments.search_result import SearchResult
from bitwright.nas.result import Outcome, Result, Violation
from bitwright.nas.search_outcome import SearchOutcome, Told

DIGITS = """
name: small
description: A small network on handwritten digits.
target: x86-avx2
model: {kind: digits_mobilenet, width: 0.5, depth: 1}
data: {kind: digits, size: 32}
train: {epochs: 2, batch: 64}
calibrate: {samples: 32}
evaluate: {gate: {min_agreement: 0.5}}
measure: {rounds: 10, seconds: 4}
"""

# SiLU and the bilinear interpolation are what the accelerator takes apart or refuses.
AWKWARD = """
import torch
import torch.nn.functional as F
from torch import nn


class Awkward(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        y = F.silu(self.stem(x))
        grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij"), -1)
        y = F.grid_sample(y, grid.expand(y.shape[0], -1, -1, -1) + y.mean(), align_corners=False)
        return self.head(y.mean((2, 3)))


def build():
    torch.manual_seed(0)
    return Awkward()
"""


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _run(folder: Path, recipe: str, *overrides: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(recipe)
    run_recipe(load_recipe(str(path), overrides), folder / "run", console=Console(quiet=True))
    return folder / "run"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole chain on real input: trained, quantized, scored, measured, proven, judged."""
    return _run(tmp_path_factory.mktemp("finished"), DIGITS)


@pytest.fixture(scope="session")
def awkward_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that its accelerator does not like, on a target whose runtime is not here; gates fail."""
    folder = tmp_path_factory.mktemp("awkward")
    (folder / "awkward_net.py").write_text(AWKWARD)
    sys.path.insert(0, str(folder))
    try:
        return _run(
            folder,
            DIGITS.replace("kind: digits_mobilenet, width: 0.5, depth: 1", 'entry: "awkward_net:build"'),
            "target=ethos-u85-1024",
            "train.epochs=1",
            "prove.gate.min_mac_share=1.0",
        )
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def record(finished_run: Path) -> Record:
    return read_record(finished_run)


def _figure(value: float, **more: Any) -> Figure:
    return Figure(value=value, unit="%", origin="measured", source="onnxruntime, test", n=500, **more)


def _candidate(index: int, width: float, formats: str, **more: Any) -> Result:
    return Result(key=f"{index:04x}", values={"width": width, "formats": formats}, **more)


@pytest.fixture(scope="session")
def search_result() -> SearchResult:
    """Two on the front, one that is beaten, two that are refused, one that failed, one trial that repeats."""
    dtype = Violation(constraint="lint.dtype", amount=1.0, reason="int16 <weights> are not permitted")
    results = [
        _scored(0, 0.5, "int8", accuracy=90.0, latency_ms=0.2, latency_ms_low=0.19, latency_ms_high=0.21),
        _candidate(1, 0.5, "int16", outcome=Outcome.INFEASIBLE, stage="lint", violations=(dtype,)),
        _scored(2, 1.0, "int8", accuracy=95.0, latency_ms=0.4),
        _scored(3, 1.0, "float32", accuracy=94.0, latency_ms=0.7),
        _candidate(4, 1.0, "int16", outcome=Outcome.INFEASIBLE, stage="lint", violations=(dtype,)),
        _candidate(5, 2.0, "int8", outcome=Outcome.FAILED, stage="train", reason="train: no memory left"),
    ]
    trials = [Told(number=number, result=each, repeated=False) for number, each in enumerate(results)]
    trials.append(Told(number=len(results), result=results[0], repeated=True))
    outcome = SearchOutcome(trials=tuple(trials), objectives=("accuracy", "latency_ms"), maximize=(True, False))
    return SearchResult.of(outcome, metric="top1", unit="%", device="some CPU, onnxruntime 1.2, 1 thread")


def _scored(index: int, width: float, formats: str, **figures: float) -> Result:
    seconds = {"lint": 0.1, "train": 2.0}
    return _candidate(index, width, formats, outcome=Outcome.SCORED, stage="measure", figures=figures, seconds=seconds)


@pytest.fixture(scope="session")
def full_record(record: Record, search_result: SearchResult) -> Record:
    """The real run with what a search and a QAT stage would add."""
    epochs = tuple(
        QATEpoch(loss=loss, lr=1e-3, seconds=1.0, quantized=_figure(value))
        for loss, value in ((1.0, 80.0), (0.5, 85.0), (0.3, 88.0))
    )
    qat = QATResult(
        scheme="weights int4 per channel",
        metric="top1",
        direction="higher",
        engine="onnxruntime",
        epochs=epochs,
        reference=_figure(92.0),
        ptq=_figure(71.0),
        qat=_figure(88.5),
        gain=_figure(17.5, low=14.0, high=21.0),
    )
    more = {
        name: StageRecord(status="done", result=result.model_dump(mode="json"))
        for name, result in (("qat", qat), ("search", search_result))
    }
    return record.model_copy(update={"stages": {**record.stages, **more}})


@pytest.fixture(scope="session")
def chromium_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chromium", Path(__file__).with_name("chromium.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def browser(chromium_module: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Skips without Chromium, unless the environment says that it must be here."""
    if chromium_module.executable() is None:
        reason = f"none of {', '.join(chromium_module.EXECUTABLES)} is installed: apt-get install chromium"
        if os.environ.get("BITWRIGHT_REQUIRE_CHROMIUM") == "1":
            pytest.fail(f"BITWRIGHT_REQUIRE_CHROMIUM=1, but {reason}")
        pytest.skip(reason)
    chromium = chromium_module.Chromium(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()
