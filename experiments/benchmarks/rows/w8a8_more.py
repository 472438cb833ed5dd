"""Networks that nothing was tuned for in W8A8 with the defaults: ours beside three peers', on each of them.

They are trained here on real data by the shipped recipes with another network or other data in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitwright.experiments.benchmarks.contest import AGREEMENT, AREA, MACS, SQNR, WALL, Contest, hold
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.rows.w8a8_resnet20 import scorer

ROW = "w8a8_more"
SIDES = ((OURS, "x86-vnni"), ("ort", "percentile"), ("nncf", "fast_bias_correction"), ("torchao", "x86"))
NETWORKS: Mapping[str, tuple[str, ...]] = {
    "MobileNet, digits at 64²": ("digits",),
    "ResNet-20, digits at 32²": ("digits", "model={kind: cifar_resnet}", "data.size=32"),
    "MobileNet of 5×5, digits at 48²": ("digits", "model.kernel=5", "model.depth=1", "data.size=48"),
    "MobileNet, patches at 32²": ("camvid_patches", "model={kind: digits_mobilenet, classes: 11}"),
    "ResNet-8 of twice the width, digits at 32²": (
        "digits",
        "model={kind: cifar_resnet, blocks: 1, width: 2}",
        "data.size=32",
    ),
}


def run(bench: Bench) -> list[Record]:
    """Trains the networks if that has not been done, quantizes each by everybody and scores them."""
    contests, images = {}, 0
    for name, recipe in NETWORKS.items():
        trained = bench.trained(*recipe)
        jobs = [trained.job(peer, method) for peer, method in SIDES]
        contests[name] = hold(jobs, scorer(trained), home=bench.home, cache=bench.peers)
        images += len(trained.labels)
    table = [{"network": name, **line} for name, contest in contests.items() for line in contest.table]
    common: dict[str, Any] = {"area": AREA, "peers": next(iter(contests.values())).versions, "table": table}

    def least(name: str, values: list[float], unit: str, reach: Reach | None) -> Record:
        return record(f"{ROW}.{name}", value=min(values), unit=unit, n=len(values), reach=reach, **common)

    every = list(contests.values())
    return [
        least("sqnr_margin", [_margin(each, SQNR) for each in every], "dB over the best peer, least", Reach("≥", 0.0)),
        least("agreement_margin", [_margin(each, AGREEMENT) for each in every], "points over it, least", None),
        least("macs_in_int8", [each.ours.in_int8[MACS] for each in every], "% of MACs, least", Reach("=", 100.0)),
        record(
            f"{ROW}.wall",
            value=max(each.ours.wall_s / each.best_peer().wall_s for each in every),
            unit=f"of the best peer's {WALL}, most",
            n=len(every),
            reach=Reach("≤", 1.0),
            **common,
        ),
        record(f"{ROW}.images", value=float(images), unit="scored images", n=images, **common),
    ]


def _margin(contest: Contest, column: str) -> float:
    return contest.ours.figures[column].value - contest.best_peer(column).figures[column].value
