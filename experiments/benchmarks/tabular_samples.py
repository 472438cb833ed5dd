"""Samples of the tabular spaces looked at for real: trained by themselves, exported to int8 and measured.

Each network's figures are kept by themselves, so a row that was cut off goes on there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from bitwright.experiments.benchmarks.kept import digest, kept
from bitwright.experiments.benchmarks.tabular_networks import Networks
from bitwright.experiments.benchmarks.tabular_space import Table
from bitwright.experiments.datasets.digits import Settings as DigitsSettings
from bitwright.experiments.datasets.digits import open_digits
from bitwright.experiments.supernet_task import DataTask
from bitwright.hw_constraints.table.bench import Bench as MeasuringBench
from bitwright.hw_constraints.table.placement import Effort
from bitwright.hw_constraints.target import load_target
from bitwright.nas.result import Outcome, Result
from bitwright.nas.space import Candidate
from bitwright.nas.supernet import StandAloneAccuracy, SupernetSettings
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.ptq import quantize

_BATCH, _SCORED = 64, 400  # as the shared weights of the tables had them
_TARGET, _RUNTIME = "x86-vnni", "onnxruntime"  # whose latencies the tables have
_PLACEMENTS, _EFFORT = 3, Effort(rounds=5, seconds=0.12)  # as whole networks are measured for row `predict_networks`
_CODE_ALONE = ("nas.supernet.stand_alone", "nas.supernet.recalibration", "experiments.benchmarks.narrow_networks")
_CODE_FILES = ("quant", "experiments.benchmarks.narrow_networks", "experiments.models.elastic_layers")


def spread_over(table: Table, figure: str, count: int) -> list[Result]:
    """Candidates at equal steps of rank in one figure, from the least to the most."""
    scored = [each for each in table.results.values() if each.outcome is Outcome.SCORED]
    ranked = sorted(scored, key=lambda each: (each.figures[figure], each.key))
    places = np.linspace(0, len(ranked) - 1, count).round().astype(int)
    return [ranked[place] for place in places.tolist()]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Networks of one table, for real.

    Attributes:
        networks: the table's family.
        alone: how networks are trained by themselves.
        folder: where everything is kept.
    """

    networks: Networks
    alone: SupernetSettings
    folder: Path

    def alone_accuracy(self, result: Result, seed: int) -> float:
        """The score after training by itself on the data that the shared weights learned."""
        return self._stand_alone(self._candidate(result), seed)

    @cached_property
    def _stand_alone(self) -> StandAloneAccuracy:
        data = open_digits(DigitsSettings(size=self.networks.size))
        task = DataTask(data=data, read=lambda batch: (batch[0],), batch=_BATCH, samples=_SCORED)
        identity = (
            f"{self.networks.name} {self.networks.space} {self.networks.size} {self.alone} {dict(task.fingerprint)}"
        )
        return StandAloneAccuracy(
            space=self.networks.space,
            build=self._fresh,
            task=task,
            settings=self.alone,
            folder=self.folder / f"{self.networks.name}-alone-{digest(identity, _CODE_ALONE)}",
        )

    def _fresh(self, candidate: Candidate, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.networks.build(candidate.values)

    def _candidate(self, result: Result) -> Candidate:
        return next(each for each in self.networks.candidates if each.key == result.key)

    def int8_file(self, result: Result) -> Path:
        """The network as the table's latencies mean it; values of weights do not matter to its time."""
        folder = self.folder / f"{self.networks.name}-files-{digest(self.networks.name, _CODE_FILES)}"
        file = folder / f"{result.key}.onnx"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            network = self._fresh(self._candidate(result), 0).eval()
            generator = torch.Generator().manual_seed(0)
            samples = [(torch.rand(self.networks.example[0].shape, generator=generator),) for _ in range(2)]
            captured = capture(network, self.networks.example)
            quantized = quantize(captured, load_target(_TARGET).scheme(), samples, bias_correction=False)
            export_onnx_qdq(quantized, file)
        return file

    def ratios(self, results: Sequence[Result]) -> list[float]:
        """Latencies in relation to the kernel tables' reference, which is timed in the same rounds."""
        files = [self.int8_file(each) for each in results]
        found = []
        with MeasuringBench(_RUNTIME, 1) as bench:
            for result, file in zip(results, files, strict=True):
                line = kept(file.parent, f"{result.key}-ratio", str(_EFFORT), (), lambda: _timed(bench, file))  # noqa: B023 - called at once
                found.append(float(line["ratio"]))
        return found


def _timed(bench: MeasuringBench, file: Path) -> dict[str, Any]:
    (found,) = bench.measure([{"file": str(file)}], placements=_PLACEMENTS, effort=_EFFORT, seed=0)
    seen = [each["ratio"] for each in found.get("placements", []) if not math.isnan(each["ratio"])]
    return {"ratio": median(seen)}
