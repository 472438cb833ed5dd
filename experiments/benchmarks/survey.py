"""One network before every accelerator: captured, linted, lowered, and each finding's line looked up in its file."""

from __future__ import annotations

import linecache
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bitwright.experiments.lint_command import Captured, lint_captured
from bitwright.hw_constraints.finding import Finding
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target_types import Capability, Target
from bitwright.quant.errors import InputError
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.regions import Regions, find_regions


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What became of one network.

    Attributes:
        regions: what was captured; None after a crash.
        findings: on all accelerators.
        without_line: findings whose line is not in the file that they name, or that name none.
        lowered: accelerators on which all regions were lowered.
        refused: what lowering refused, and why.
        crashes: what raised anything else than a message to the user.
        seconds: all of it together.
    """

    regions: Regions | None
    findings: tuple[Finding, ...]
    without_line: tuple[Finding, ...]
    lowered: tuple[str, ...]
    refused: tuple[str, ...]
    crashes: tuple[str, ...]
    seconds: float


def survey(model: torch.nn.Module, args: tuple[Any, ...], targets: Sequence[Target]) -> Survey:
    """Takes a network before all accelerators."""
    start = time.perf_counter()
    crashes: list[str] = []
    findings: list[Finding] = []
    lowered: list[str] = []
    refused: list[str] = []
    regions: Regions | None = None
    try:
        regions = find_regions(model, args)
        graphs = [fold_batch_norm(region.captured).graph for region in regions.regions]
    except Exception:  # whatever it is, it is what this counts
        graphs = []
        crashes.append(f"capture: {_last_line()}")
    failures = regions.failures if regions is not None else ()
    for target in targets:
        try:
            findings += lint_captured(Captured(graphs=tuple(graphs), failures=failures), target)
        except Exception:
            crashes.append(f"lint on {target.id}: {_last_line()}")
        if Capability.LOWER not in target.capabilities or not graphs:
            continue
        try:
            for graph in graphs:
                lower(graph, target)
            lowered.append(target.id)
        except InputError as error:
            refused.append(f"{target.id}: {error}")
        except Exception:
            crashes.append(f"lower on {target.id}: {_last_line()}")
    return Survey(
        regions=regions,
        findings=tuple(findings),
        without_line=tuple(each for each in findings if not has_real_line(each)),
        lowered=tuple(lowered),
        refused=tuple(refused),
        crashes=tuple(crashes),
        seconds=time.perf_counter() - start,
    )


def has_real_line(finding: Finding) -> bool:
    """Whether its file exists, has that line, and the line reads as the finding says."""
    source = finding.source
    if source is None or not Path(source.file).is_file():
        return False
    line = linecache.getline(source.file, source.line)
    return bool(line) and source.text in line


def _last_line() -> str:
    return " | ".join(traceback.format_exc().strip().splitlines()[-3:])
