"""ResNet-20 on 32×32 patches in W4A8, all layers in four bits per channel: ours beside Brevitas' GPFQ and GPTQ.

The network and the data are those of `w8a8_resnet20`.
"""

from __future__ import annotations

from bitwright.experiments.benchmarks.contest import ADDITIONS, AGREEMENT, MACS, SQNR, WALL, hold, records_of
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.records import Reach, Record
from bitwright.experiments.benchmarks.rows.w8a8_resnet20 import MARGIN_DB, RECIPE, scorer

ROW = "w4a8_resnet20"
MARGIN_POINTS = 1.0
SIDES = (
    (OURS, "x86-vnni,int4,gptq"),
    (OURS, "x86-vnni,int4,adaround"),
    ("brevitas", "int4,alone,gpfq"),
    ("brevitas", "int4,gpfq"),
    ("brevitas", "int4,alone,gptq"),
    ("brevitas", "int4,gptq"),
)


def run(bench: Bench) -> list[Record]:
    """Trains the network if that has not been done, quantizes it by everybody and scores them."""
    trained = bench.trained(RECIPE)
    jobs = [trained.job(peer, method) for peer, method in SIDES]
    contest = hold(jobs, scorer(trained), home=bench.home, cache=bench.peers)
    best, most_alike = contest.best_peer(SQNR), contest.best_peer(AGREEMENT)
    reaches = {
        SQNR: Reach("≥", best.figures[SQNR].value + MARGIN_DB),
        AGREEMENT: Reach("≥", most_alike.figures[AGREEMENT].value + MARGIN_POINTS),
        WALL: Reach("≤", best.wall_s),
        MACS: Reach("=", 100.0),
        ADDITIONS: Reach("=", 100.0),
    }
    return records_of(ROW, contest, n=len(trained.labels), reaches=reaches)
