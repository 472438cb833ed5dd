"""Few calibration samples of many, on one network: the first, a random draw, and those that are spread as all are.

From each of five random halves of the calibration data each way takes the same number of samples; the network is
quantized with the target's defaults and the file scored on pictures that nobody calibrated with. The ways differ in
nothing else, so their differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from bitwright.experiments.benchmarks.metrics import agreement_percent, sqnr_db
from bitwright.experiments.benchmarks.onnx_logits import onnx_logits
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.target import load_target
from bitwright.quant.calibration_choice import choose_samples, histograms_of
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.fit_scheme import fit_scheme
from bitwright.quant.plan import plan
from bitwright.quant.ptq import quantize

TARGET = "x86-vnni"
DRAWS = 5
SAMPLES = 16
WAYS = ("first", "random", "coverage")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network, what may calibrate it, and what it is scored on."""

    captured: CapturedModel
    candidates: npt.NDArray[np.float32]
    scored: Path
    reference: npt.NDArray[np.float32]


def compared(row: str, subject: Subject, cache: Path) -> list[Record]:
    """The figures of one network: what coverage gains over a random draw, and all ways beside each other."""
    table = list(_table(subject, cache / row))
    found = []
    for figure, unit in (("SQNR", "dB"), ("agreement", "%")):
        gain, low, high = _paired([line["coverage"][figure] - line["random"][figure] for line in table])
        found.append(
            record(
                f"{row}.{figure.lower()}",
                area="quant",
                value=gain,
                unit=f"{unit} of coverage over random",
                n=len(table),
                reach=Reach("≥", 0.0),
                spread=(low, high),
                table=_lines(table, figure),
            )
        )
    return found


def _images(subject: Subject, rows: Sequence[int]) -> Iterator[tuple[torch.Tensor]]:
    return ((torch.from_numpy(np.array(subject.candidates[row][None])),) for row in rows)


def _table(subject: Subject, cache: Path) -> Iterator[dict[str, dict[str, float]]]:
    """Of each draw, SQNR and agreement by way."""
    count = len(subject.candidates)
    scheme = load_target(TARGET).scheme()
    folded = fit_scheme(subject.captured, scheme)
    planned = plan(folded.graph, scheme)
    refs = [ref for ref in planned.activations if not folded.graph.is_constant(ref)]
    histograms = histograms_of(folded, refs, _images(subject, range(count)))
    for seed in range(DRAWS):
        half = np.sort(np.random.default_rng(seed).permutation(count)[: count // 2])
        rows = {
            "first": half[:SAMPLES],
            "random": np.random.default_rng(100 + seed).choice(half, SAMPLES, replace=False),
            "coverage": half[choose_samples(histograms[half], SAMPLES)],
        }
        yield {way: _score(subject, [int(row) for row in rows[way]], cache / f"{way}.onnx") for way in WAYS}


def _score(subject: Subject, rows: Sequence[int], file: Path) -> dict[str, float]:
    file.parent.mkdir(parents=True, exist_ok=True)
    export_onnx_qdq(quantize(subject.captured, load_target(TARGET).scheme(), _images(subject, rows)), file)
    logits = onnx_logits(file, subject.scored)
    return {
        "SQNR": sqnr_db(subject.reference, logits).value,
        "agreement": agreement_percent(subject.reference, logits).value,
    }


def _paired(gains: Sequence[float]) -> tuple[float, float, float]:
    """The mean of paired differences with Student's 95 % interval over draws."""
    mean, spread = float(np.mean(gains)), float(np.std(gains, ddof=1)) / math.sqrt(len(gains))
    half = float(stats.t.ppf(0.975, len(gains) - 1)) * spread
    return mean, mean - half, mean + half


def _lines(table: Sequence[dict[str, dict[str, float]]], figure: str) -> list[dict[str, Any]]:
    lines = [
        {"draw": str(seed), **{way: f"{line[way][figure]:.2f}" for way in WAYS}} for seed, line in enumerate(table)
    ]  # fmt: skip
    means = {way: f"{np.mean([line[way][figure] for line in table]):.2f}" for way in WAYS}
    return [*lines, {"draw": "mean", **means}]
