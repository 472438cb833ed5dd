"""Cycles, order of the blocks, SRAM and off-chip bytes on three Ethos-U, beside Vela on the same int8 networks.

Both sides see the same graph with the same codes of the weights. Vela's options are those of `peers/vela_options.json`.
Compared block by block: a block is what the accelerator runs as one, named after the tensor that it makes.

The held-out four were first run at commit 960139e: worst cycles 1.18 %, τ 0.971, SRAM 1.7 %, off-chip bytes 8.4 % off.
The last of these showed one wrong term, which has been put right since: staged weights within a cascade.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.cost_networks import NETWORKS, CostNetwork
from bitwright.experiments.benchmarks.peers.vela import VelaRun, run_vela
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.tflite_network import tflite_network
from bitwright.hw_constraints.cost.ethos_u.estimate import network_cost
from bitwright.hw_constraints.cost.ethos_u.schedule import NetworkCost
from bitwright.hw_constraints.target import load_target

ROW = "ethos_u_vela"
KIB = 1024


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One network on one configuration.

    Attributes:
        network: which.
        target: on what.
        ours: our estimate.
        vela: Vela's.
        ours_s: from the graph to the estimate.
        pairs: cycles of the blocks that both have, ours and Vela's.
        unmatched: blocks that only one side has, and what ours does not model.
    """

    network: CostNetwork
    target: str
    ours: NetworkCost
    vela: VelaRun
    ours_s: float
    pairs: tuple[tuple[int, int], ...]
    unmatched: tuple[str, ...]

    @property
    def cycles_ratio(self) -> float:
        """Ours to Vela's."""
        return self.ours.cycles / float(self.vela.summary["cycles_total"])

    @property
    def sram_ratio(self) -> float:
        """Of the peak."""
        return self.ours.on_chip_peak / (float(self.vela.summary["sram_memory_used"]) * KIB)

    @property
    def off_chip_ratio(self) -> float:
        """Of the bytes moved to and from flash or DRAM."""
        keys = ("dram_total_bytes", "off_chip_flash_total_bytes")
        return self.ours.off_chip_bytes / sum(float(self.vela.summary[key]) for key in keys)

    @property
    def tau(self) -> float:
        """Kendall's, over the blocks' cycles."""
        return kendall_tau_b(*zip(*self.pairs, strict=True))

    def line(self) -> dict[str, Any]:
        """For the table."""
        return {
            "network": self.network.name,
            "set": "held out" if self.network.held_out else "tuned on",
            "target": self.target,
            "cycles": self.ours.cycles,
            "Vela's": int(self.vela.summary["cycles_total"]),
            "ratio": round(self.cycles_ratio, 4),
            "tau": round(self.tau, 4),
            "blocks": len(self.pairs),
            "SRAM ratio": round(self.sram_ratio, 4),
            "off-chip ratio": round(self.off_chip_ratio, 4),
            "ours s": round(self.ours_s, 3),
            "Vela s": round(self.vela.wall_s, 2),
        }


def run(bench: Bench) -> list[Record]:
    """Every network on every configuration; one record for each figure of each set."""
    found = [each for network in NETWORKS for each in _compare(bench, network)]
    records = []
    for held_out, name in ((False, "tuned_on"), (True, "held_out")):
        those = [each for each in found if each.network.held_out is held_out]
        records += _records(name, those)
    return records


def _compare(bench: Bench, network: CostNetwork) -> list[Comparison]:
    graph = network.graph(bench.home)
    runs = run_vela(network.name, tflite_network(graph), home=bench.home, cache=bench.cache / "vela")
    found = []
    for target, vela in runs.items():
        start = time.perf_counter()
        ours = network_cost(graph, load_target(target))
        ours_s = time.perf_counter() - start
        pairs, unmatched = matched(ours, vela)
        unmatched = (*unmatched, *map(str, ours.unmodelled))
        found.append(
            Comparison(
                network=network, target=target, ours=ours, vela=vela, ours_s=ours_s, pairs=pairs, unmatched=unmatched
            )
        )
    return found


def matched(ours: NetworkCost, vela: VelaRun) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...]]:
    """Blocks by the name of the tensor that they make and, where several write parts of one, their order."""
    mine = _numbered([(op.name, op.cycles) for op in ours.ops])
    lines = [(layer["Name"], int(layer["Op Cycles"])) for layer in vela.layers]
    theirs = _numbered(
        [(name, cycles) for name, cycles in lines if cycles]
    )  # a fused activation has no line of its own
    pairs = tuple((mine[key], theirs[key]) for key in mine if key in theirs)
    return pairs, tuple(f"{name} #{number}" for name, number in mine.keys() ^ theirs.keys())


def _numbered(blocks: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
    seen: Counter[str] = Counter()
    table = {}
    for name, cycles in blocks:
        table[name, seen[name]] = cycles
        seen[name] += 1
    return table


def kendall_tau_b(left: Sequence[float], right: Sequence[float]) -> float:
    """τ-b: (concordant − discordant) pairs over the geometric mean of the pairs without ties on either side."""
    score = left_untied = right_untied = 0
    for position in range(len(left)):
        for other in range(position):
            a = (left[position] > left[other]) - (left[position] < left[other])
            b = (right[position] > right[other]) - (right[position] < right[other])
            score, left_untied, right_untied = score + a * b, left_untied + a * a, right_untied + b * b
    return score / math.sqrt(left_untied * right_untied)


def _records(name: str, those: Sequence[Comparison]) -> list[Record]:
    table = [each.line() for each in those]
    blocks = sum(len(each.pairs) for each in those)
    peers = {"ethos-u-vela": those[0].vela.version}

    def worst(ratios: Sequence[float]) -> float:
        return 100 * max(abs(ratio - 1) for ratio in ratios)

    figures = (
        ("cycles", worst([each.cycles_ratio for each in those]), "% off in the worst network", Reach("≤", 15.0)),
        ("order", min(each.tau for each in those), "Kendall τ of the worst network", Reach("≥", 0.9)),
        ("sram", worst([each.sram_ratio for each in those]), "% off in the worst network", Reach("≤", 15.0)),
        ("off_chip", worst([each.off_chip_ratio for each in those]), "% off in the worst network", Reach("≤", 15.0)),
        ("unmatched", float(sum(len(each.unmatched) for each in those)), "blocks of one side alone", Reach("=", 0.0)),
    )
    return [
        record(
            f"{ROW}.{name}.{figure}",
            area="hw_constraints",
            value=value,
            unit=unit,
            n=blocks if figure in ("order", "unmatched") else len(those),
            reach=reach,
            peers=peers,
            table=table,
        )
        for figure, value, unit, reach in figures
    ]
