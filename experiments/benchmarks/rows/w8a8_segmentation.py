"""A mobile segmentation network on road scenes in W8A8: how many pixels keep their class, ours beside the peers'?

The network is trained here by the recipe `camvid_segmentation`; everybody calibrates with the same 200 pictures and is
scored on the 233 of other drives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bitwright.experiments.benchmarks.contest import MACS, SQNR, WALL, Logits, hold, records_of
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.metrics import Estimate, sqnr_db
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.records import Reach, Record
from bitwright.experiments.benchmarks.segmentation_metrics import LabelledPixels, pixel_agreement_percent
from bitwright.experiments.benchmarks.trained_networks import TrainedNetwork

ROW = "w8a8_segmentation"
RECIPE = "camvid_segmentation"
IGNORED = 11
AGREEMENT = "pixel agreement %"
DROP = "mIoU drop, points"
SIDES = (
    (OURS, "x86-vnni,gptq"),
    (OURS, "x86-vnni"),
    ("torchao", "x86"),
    ("ort", "percentile"),
    ("nncf", "fast_bias_correction"),
    ("nncf", "bias_correction"),
    ("aimet", "int8"),
    ("modelopt", "int8"),
)


def run(bench: Bench) -> list[Record]:
    """Trains the network if that has not been done, quantizes it by everybody and scores them."""
    trained = bench.trained(RECIPE)
    jobs = [trained.job(peer, method) for peer, method in SIDES]
    contest = hold(jobs, _scorer(trained), home=bench.home, cache=bench.peers)
    best = contest.best_peer()
    reaches = {
        SQNR: Reach("≥", best.figures[SQNR].value),
        AGREEMENT: Reach("≥", contest.best_peer(AGREEMENT).figures[AGREEMENT].value),
        WALL: Reach("≤", best.wall_s),
        MACS: Reach("=", 100.0),
    }
    return records_of(ROW, contest, n=len(trained.labels), reaches=reaches)


def _scorer(trained: TrainedNetwork) -> Callable[[Logits], Mapping[str, Estimate]]:
    reference = trained.float_logits
    pixels = LabelledPixels(labels=trained.labels, classes=reference.shape[1], ignored=IGNORED)

    def score(logits: Logits) -> Mapping[str, Estimate]:
        return {
            AGREEMENT: pixel_agreement_percent(reference, logits),
            SQNR: sqnr_db(reference, logits),
            DROP: pixels.miou_drop(reference, logits),
        }

    return score
