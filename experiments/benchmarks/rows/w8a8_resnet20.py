"""ResNet-20 on 32×32 patches in W8A8, every convolution, addition and linear layer: ours beside six peers.

The network is trained here by the recipe `camvid_patches`; everybody calibrates with the same 200 patches and is scored
on 2,200 others from other drives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bitwright.experiments.benchmarks.contest import ADDITIONS, AGREEMENT, MACS, SQNR, WALL, Logits, hold, records_of
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.metrics import Estimate, agreement_percent, sqnr_db, top1_drop_points
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.records import Reach, Record
from bitwright.experiments.benchmarks.trained_networks import TrainedNetwork

ROW = "w8a8_resnet20"
RECIPE = "camvid_patches"
MARGIN_DB = 1.5
DROP = "top-1 drop, points"
SIDES = (
    (OURS, "x86-vnni"),
    ("torchao", "x86"),
    ("ort", "percentile"),
    ("ort", "min_max"),
    ("nncf", "fast_bias_correction"),
    ("nncf", "bias_correction"),
    ("aimet", "int8"),
    ("modelopt", "int8"),
    ("brevitas", "int8"),
)


def run(bench: Bench) -> list[Record]:
    """Trains the network if that has not been done, quantizes it by everybody and scores them."""
    trained = bench.trained(RECIPE)
    jobs = [trained.job(peer, method) for peer, method in SIDES]
    contest = hold(jobs, scorer(trained), home=bench.home, cache=bench.peers)
    best = contest.best_peer()
    reaches = {
        SQNR: Reach("≥", best.figures[SQNR].value + MARGIN_DB),
        WALL: Reach("≤", best.wall_s),
        MACS: Reach("=", 100.0),
        ADDITIONS: Reach("=", 100.0),
    }
    return records_of(ROW, contest, n=len(trained.labels), reaches=reaches)


def scorer(trained: TrainedNetwork) -> Callable[[Logits], Mapping[str, Estimate]]:
    """What a classifier's logits are scored by."""
    reference, labels = trained.float_logits, trained.labels

    def score(logits: Logits) -> Mapping[str, Estimate]:
        return {
            AGREEMENT: agreement_percent(reference, logits),
            SQNR: sqnr_db(reference, logits),
            DROP: top1_drop_points(reference, logits, labels),
        }

    return score
