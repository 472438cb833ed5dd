"""Public architectures in int8: quantized, exported and run in ONNX Runtime, with the proof of what runs in int8 there.

Random weights and standard normal pictures: what runs, and in which format, does not hang on them; the layers' SQNR
does, and is printed as what it is. What was found of a network is kept, so that a run that was cut off goes on.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bitwright.experiments.benchmarks.architectures import ARCHITECTURES, Architecture, build
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.kept import kept
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.w8a8_survey import W8A8, described, example_batches, quantiles, survey_w8a8
from bitwright.experiments.console import Console
from bitwright.hw_constraints.target import load_target
from bitwright.quant.regions import find_regions

ROW = "public_w8a8"
AREA = "quant"
TARGET = "x86-vnni"
BATCHES = 4
LEAST = 95.0  # % of a network's multiply-accumulates
_CODE = (
    "quant.plan",
    "quant.capture",
    "quant.fit_scheme",
    "quant.export.onnx_qdq",
    "quant.export.onnx_translators",
    "hw_constraints.proof",
    "experiments.benchmarks.w8a8_survey",
)


def run(bench: Bench) -> list[Record]:
    """Takes every architecture through the chain."""
    torch.set_num_threads(1)
    install_library(bench.home)
    lines = []
    with Console().track("architectures", len(ARCHITECTURES)) as advance:
        for done, architecture in enumerate(ARCHITECTURES, 1):
            look = partial(_look, architecture, bench.home / LIBRARY)
            lines.append(kept(bench.ours / ROW, architecture.name, f"{architecture!r} {TARGET}", _CODE, look))
            advance(done, architecture.name)
    return _records(lines)


def _look(architecture: Architecture, library: Path) -> dict[str, Any]:
    start = time.perf_counter()
    model, args = build(architecture, library)
    regions = find_regions(model, args)
    with tempfile.TemporaryDirectory() as folder:
        found = survey_w8a8(regions, example_batches(args, BATCHES), load_target(TARGET).scheme(), Path(folder))
    line = _line(architecture, found, time.perf_counter() - start)
    del model, args, regions
    gc.collect()  # modules refer to themselves, and seventy networks' weights do not fit beside each other
    return line


def _line(architecture: Architecture, found: W8A8, seconds: float) -> dict[str, Any]:
    median, worst, whose = quantiles(found.layers)
    return {
        "architecture": architecture.name,
        "library": architecture.library,
        "task": architecture.task,
        "% of MACs in int8": 100 * found.int8,
        "layers": len(found.layers),
        "layers' SQNR, median, dB": median,
        "worst layer, dB": worst,
        "worst layer": whose,
        "results' SQNR in the runtime, dB": found.result,
        "crashes": len(found.crashes),
        "in float": described(found.in_float),
        "wrong": "; ".join((*found.crashes, *found.refused))[:300],
        "seconds": round(seconds, 1),
    }


def _records(lines: Sequence[dict[str, Any]]) -> list[Record]:
    count = len(lines)
    ran = [line for line in lines if not line["crashes"]]
    proven = [line for line in ran if line["% of MACs in int8"] >= LEAST]

    def figure(name: str, value: float, unit: str, reach: Reach | None = None) -> Record:
        return record(f"{ROW}.{name}", area=AREA, value=value, unit=unit, n=count, reach=reach, table=lines)

    shares = [line["% of MACs in int8"] for line in lines]
    return [
        figure("architectures", float(count), "networks", Reach("≥", 60)),
        figure("run", 100 * len(ran) / count, "% quantized, exported and run without a crash", Reach("≥", 95)),
        figure("int8", sum(shares) / count, "% of conv, linear and matmul MACs proven int8, mean", Reach("≥", 95)),
        figure("int8_networks", 100 * len(proven) / count, f"% of networks with at least {LEAST:g} % of their MACs"),
        figure("seconds", float(sum(line["seconds"] for line in lines)), "s for all of it, on a shared machine"),
    ]
