"""2:4 + W8A8 beside ModelOpt: ResNet-14 of twice the width on digits, three seeds, equal epochs and rates for all.

ONNX Runtime has no kernels for 2:4, so all files take the time of the whole network; it is measured once. Channels that
leave by predicted latency are the row `qat_pruned`, which needs a table of kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import OURS, PEERS
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.rows.qat_accuracy import _interval
from bitwright.experiments.benchmarks.sparsity_contest import SIDES, SparsityContest

ROW = "qat_sparsity"
SEEDS = (0, 1, 2)
_SECONDS = 10.0


def run(bench: Bench) -> list[Record]:
    """Every training that is not kept yet, then the figure."""
    contest = SparsityContest(bench)
    answers = {side: contest.best(side, "2:4", SEEDS) for side in SIDES}
    measured = contest.measured({"whole": contest.file(contest.whole_shapes(), "whole")}, _SECONDS)
    us = f"{measured.latency('whole').median_us:.0f}"
    gain = np.array([a["test"] - b["test"] for a, b in zip(answers[OURS], answers["modelopt"], strict=True)])
    return [
        record(
            f"{ROW}.2_4.over_modelopt",
            area="qat",
            value=float(gain.mean()),
            unit="points",
            reach=Reach("≥", 0.0),
            n=len(SEEDS),
            spread=_interval(gain),
            peers={"modelopt": PEERS["modelopt"].package.partition("==")[2]},
            table=_table(contest.contest.float_score(), us, answers),
        )
    ]


def _table(float_score: float, us: str, answers: dict[str, list[Any]]) -> list[dict[str, str]]:
    """The float network's score, then each side's by seed; all files have the latency of the first line."""
    lines = [{"who": "float, whole; latency of its W8A8", "top1 %": f"{float_score:.2f}", "measured us": us}]
    for side, found in answers.items():
        lines.append(
            {
                "who": f"{side} 2:4 W8A8",
                "top1 %": ", ".join(f"{answer['test']:.2f}" for answer in found),
                "zeros": f"{found[0]['zeros']:.3f}",
                "rate": f"{found[0]['rate']:g}",
            }
        )
    return lines
