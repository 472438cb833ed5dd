"""Driving-style networks before every accelerator: nothing crashes, and what is not captured whole lies in regions."""

from __future__ import annotations

import torch

from bitwright.experiments.benchmarks import driving
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.survey import Survey, survey
from bitwright.experiments.console import Console
from bitwright.hw_constraints.target import list_targets, load_target
from bitwright.hw_constraints.target_types import Capability

ROW = "driving_networks"
MOST = 0.9  # of the multiply-accumulates of a network that is not captured whole


def run(bench: Bench) -> list[Record]:
    """Takes every network before every accelerator."""
    torch.set_num_threads(1)
    targets = [load_target(name) for name in list_targets()]
    names, surveys = driving.names(), {}
    with Console().track("networks", len(names)) as advance:
        for done, name in enumerate(names, 1):
            network = driving.load(name)
            surveys[name] = survey(network.model, network.args, targets)
            advance(done, name)
    lowering = sum(Capability.LOWER in target.capabilities for target in targets)
    table = [_line(name, found, lowering) for name, found in surveys.items()]
    shares = [each.regions.mac_share for each in surveys.values() if each.regions and not each.regions.is_whole]
    findings = sum(len(each.findings) for each in surveys.values())

    def figure(name: str, value: float, unit: str, n: int, reach: Reach) -> Record:
        return record(f"{ROW}.{name}", area="hw_constraints", value=value, unit=unit, n=n, reach=reach, table=table)

    without_line = sum(len(each.without_line) for each in surveys.values())
    crashes = sum(len(each.crashes) for each in surveys.values())
    mostly = sum(share >= MOST for share in shares)
    unit = f"networks in pieces with ≥ {MOST:.0%} of their MACs in regions"
    return [
        figure("networks", float(len(names)), "networks", len(names), Reach("≥", 20)),
        figure("crashes", float(crashes), "crashes", len(names) * len(targets), Reach("=", 0)),
        figure("without_line", float(without_line), "findings without a real line", findings, Reach("=", 0)),
        figure("mostly_in_regions", float(mostly), unit, len(shares), Reach("≥", 8)),
    ]


def _line(name: str, found: Survey, lowering: int) -> dict[str, str]:
    regions = found.regions
    captured = "crashed" if regions is None else "whole" if regions.is_whole else f"{len(regions.regions)} regions"
    return {
        "network": name,
        "captured": captured,
        "MACs in regions": f"{regions.mac_share:.1%}" if regions else "–",
        "time in regions": f"{regions.time_share:.0%}" if regions else "–",
        "lowered": f"{len(found.lowered)}/{lowering}",
        "findings": str(len(found.findings)),
        "seconds": f"{found.seconds:.1f}",
        "wrong": "; ".join((*found.crashes, *found.refused))[:300],
    }
