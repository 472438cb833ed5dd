"""Public architectures before every accelerator: captured and lowered whole or in pieces, and each finding's line real.

Random weights: nothing here depends on their values.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence

import torch

from bitwright.experiments.benchmarks.architectures import ARCHITECTURES, Architecture, build
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.survey import Survey, survey
from bitwright.experiments.console import Console
from bitwright.hw_constraints.target import list_targets, load_target
from bitwright.hw_constraints.target_types import Capability, Target

ROW = "public_architectures"
AREA = "hw_constraints"


def run(bench: Bench) -> list[Record]:
    """Takes every architecture before every accelerator."""
    torch.set_num_threads(1)
    install_library(bench.home)
    targets = [load_target(name) for name in list_targets()]
    start = time.perf_counter()
    surveys: dict[Architecture, Survey] = {}
    with Console().track("architectures", len(ARCHITECTURES)) as advance:
        for done, architecture in enumerate(ARCHITECTURES, 1):
            model, args = build(architecture, bench.home / LIBRARY)
            surveys[architecture] = survey(model, args, targets)
            del model, args
            gc.collect()
            advance(done, architecture.name)
    return _records(surveys, targets, time.perf_counter() - start)


def _records(surveys: Mapping[Architecture, Survey], targets: Sequence[Target], seconds: float) -> list[Record]:
    count = len(surveys)
    lowering = sum(Capability.LOWER in target.capabilities for target in targets)
    whole = [each for each in surveys.values() if each.regions is not None and each.regions.is_whole]
    pieces = [each.regions.mac_share for each in surveys.values() if each.regions and not each.regions.is_whole]
    findings = sum(len(each.findings) for each in surveys.values())
    table = [_line(architecture, each, lowering) for architecture, each in surveys.items()]

    def figure(name: str, value: float, unit: str, n: int, reach: Reach | None = None) -> Record:
        return record(f"{ROW}.{name}", area=AREA, value=value, unit=unit, n=n, reach=reach, table=table)

    return [
        figure("architectures", float(count), "networks", count, Reach("≥", 60)),
        figure("targets", float(len(targets)), "accelerators", len(targets), Reach("≥", 14)),
        figure("captured_whole", 100 * len(whole) / count, "% of networks", count, Reach("≥", 90)),
        figure("in_regions", 100 * min(pieces, default=1.0), "% of MACs, the least of the others", len(pieces)),
        figure(
            "lowered",
            100 * sum(len(each.lowered) for each in whole) / max(1, len(whole) * lowering),
            "% of networks captured whole, times accelerators that lowering serves",
            len(whole) * lowering,
            Reach("≥", 90),
        ),
        figure("crashes", float(sum(len(each.crashes) for each in surveys.values())), "crashes", count, Reach("=", 0)),
        figure(
            "without_line",
            float(sum(len(each.without_line) for each in surveys.values())),
            "findings without a real line",
            findings,
            Reach("=", 0),
        ),
        figure("seconds", seconds, "s for all of it, on a shared machine", count),
    ]


def _line(architecture: Architecture, found: Survey, lowering: int) -> dict[str, str]:
    captured = "crashed"
    if found.regions is not None:
        share = f"{len(found.regions.regions)} regions, {found.regions.mac_share:.1%} of MACs"
        captured = "whole" if found.regions.is_whole else share
    return {
        "architecture": architecture.name,
        "library": architecture.library,
        "task": architecture.task,
        "captured": captured,
        "lowered": f"{len(found.lowered)}/{lowering}",
        "findings": str(len(found.findings)),
        "seconds": f"{found.seconds:.1f}",
        "wrong": "; ".join((*found.crashes, *found.refused))[:300],
    }
