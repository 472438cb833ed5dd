"""Public architectures before every accelerator: captured and lowered whole or in pieces, and each finding's line real.

Random weights: nothing here depends on their values. What was found of a network is kept until the code changes, so
that a run that was cut off goes on where it was.
"""

from __future__ import annotations

import gc
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
from bitwright.experiments.benchmarks.survey import Survey, survey
from bitwright.experiments.console import Console
from bitwright.hw_constraints.target import list_targets, load_target
from bitwright.hw_constraints.target_types import Capability, Target

ROW = "public_architectures"
AREA = "hw_constraints"
_CODE = ("quant", "hw_constraints", "experiments.lint_command", "experiments.benchmarks.survey")
_WHOLE = "whole"


def run(bench: Bench) -> list[Record]:
    """Takes every architecture before every accelerator."""
    torch.set_num_threads(1)
    install_library(bench.home)
    targets = [load_target(name) for name in list_targets()]
    lines = []
    with Console().track("architectures", len(ARCHITECTURES)) as advance:
        for done, architecture in enumerate(ARCHITECTURES, 1):
            look = partial(_look, architecture, targets, bench.home / LIBRARY)
            lines.append(kept(bench.ours / ROW, architecture.name, repr(architecture), _CODE, look))
            advance(done, architecture.name)
    return _records(lines, targets)


def _look(architecture: Architecture, targets: Sequence[Target], library: Path) -> dict[str, Any]:
    start = time.perf_counter()
    model, args = build(architecture, library)
    found = survey(model, args, targets)
    line = _line(architecture, found, time.perf_counter() - start)
    del model, args, found
    gc.collect()  # modules refer to themselves, and seventy networks' weights do not fit beside each other
    return line


def _line(architecture: Architecture, found: Survey, seconds: float) -> dict[str, Any]:
    regions = found.regions
    captured = "crashed" if regions is None else _WHOLE if regions.is_whole else f"{len(regions.regions)} regions"
    return {
        "architecture": architecture.name,
        "library": architecture.library,
        "task": architecture.task,
        "captured": captured,
        "% of MACs": 100 * regions.mac_share if regions else 0.0,
        "lowered": len(found.lowered),
        "findings": len(found.findings),
        "without a line": len(found.without_line),
        "crashes": len(found.crashes),
        "seconds": round(seconds, 1),
        "wrong": "; ".join((*found.crashes, *found.refused))[:300],
    }


def _records(lines: Sequence[dict[str, Any]], targets: Sequence[Target]) -> list[Record]:
    count = len(lines)
    lowering = sum(Capability.LOWER in target.capabilities for target in targets)
    whole = [line for line in lines if line["captured"] == _WHOLE]
    pieces = [line["% of MACs"] for line in lines if line["captured"] != _WHOLE]
    findings = sum(line["findings"] for line in lines)

    def figure(name: str, value: float, unit: str, n: int, reach: Reach | None = None) -> Record:
        return record(f"{ROW}.{name}", area=AREA, value=value, unit=unit, n=n, reach=reach, table=lines)

    def total(column: str) -> float:
        return float(sum(line[column] for line in lines))

    lowered = 100 * sum(line["lowered"] for line in whole) / max(1, len(whole) * lowering)
    served = "% of networks captured whole, times accelerators that lowering serves"
    return [
        figure("architectures", float(count), "networks", count, Reach("≥", 60)),
        figure("targets", float(len(targets)), "accelerators", len(targets), Reach("≥", 14)),
        figure("captured_whole", 100 * len(whole) / count, "% of networks", count, Reach("≥", 90)),
        figure("in_regions", min(pieces, default=100.0), "% of MACs, the least of the others", len(pieces)),
        figure("lowered", lowered, served, len(whole) * lowering, Reach("≥", 90)),
        figure("crashes", total("crashes"), "crashes", count * len(targets), Reach("=", 0)),
        figure("without_line", total("without a line"), "findings without a real line", findings, Reach("=", 0)),
        figure("seconds", total("seconds"), "s for all of it, on a shared machine", count),
    ]
