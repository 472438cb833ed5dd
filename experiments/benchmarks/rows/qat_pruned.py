"""Channels out to 60 % of the predicted latency + W8A8, beside ModelOpt at equal measured latency.

ResNet-14 of twice the width on digits, three seeds, each side with the same epochs and rates. Of ModelOpt's sizes the
one counts whose measured latency is nearest to ours. Zeros that stay in place are the row `qat_sparsity`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import OURS, PEERS
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.rows.qat_accuracy import _interval
from bitwright.experiments.benchmarks.sparsity_contest import MODELOPT_SHARES, RATES, SHARE, SparsityContest

ROW = "qat_pruned"
SEEDS = (0, 1, 2)
_SECONDS = 20.0


def run(bench: Bench) -> list[Record]:
    """Every training that is not kept yet, then the latencies and figures."""
    contest = SparsityContest(bench)
    ours = contest.best(OURS, "pruned", SEEDS, share=SHARE)
    share = _modelopt_share(contest, ours[0]["shapes"])
    pruned = {OURS: ours, "modelopt": contest.best("modelopt", "pruned", SEEDS, share=share)}
    files = {"whole": contest.file(contest.whole_shapes(), "whole")}
    for side, answers in pruned.items():
        for seed, answer in zip(SEEDS, answers, strict=True):
            files[f"{side} {seed}"] = contest.file(answer["shapes"], f"{side}-{seed}")
    measured = contest.measured(files, _SECONDS)
    us = {name: measured.latency(name).median_us for name in files}
    predicted = {name: contest.predicted_us(file) for name, file in files.items()}
    common: dict[str, Any] = {
        "area": "qat",
        "n": len(SEEDS),
        "peers": {"modelopt": PEERS["modelopt"].package.partition("==")[2]},
        "table": _table(contest.contest.float_score(), pruned, us, predicted),
    }
    gain = np.array([a["test"] - b["test"] for a, b in zip(ours, pruned["modelopt"], strict=True)])
    ratio = [us[f"{OURS} {seed}"] / us[f"modelopt {seed}"] for seed in SEEDS]
    cut = [us[f"{OURS} {seed}"] / us["whole"] for seed in SEEDS]
    error = [100 * abs(predicted[f"{OURS} {seed}"] / us[f"{OURS} {seed}"] - 1) for seed in SEEDS]
    score: dict[str, Any] = {"unit": "points", "reach": Reach("≥", 0.0), "spread": _interval(gain)}
    return [
        record(f"{ROW}.over_modelopt", value=float(gain.mean()), **score, **common),
        record(f"{ROW}.time_over_modelopt", value=float(np.mean(ratio)), unit="ratio", **common),
        record(f"{ROW}.time_over_whole", value=float(np.mean(cut)), unit="ratio", **common),
        record(f"{ROW}.predicted_error", value=float(np.mean(error)), unit="%", **common),
    ]


def _modelopt_share(contest: SparsityContest, shapes: dict[str, list[int]]) -> float:
    """Of what it may keep, the share whose network takes nearest to as long as ours, slower ones first."""
    files = {"ours": contest.file(shapes, "ours")}
    for share in MODELOPT_SHARES:
        answer = contest.answer("modelopt", "pruned", lr=RATES[0], seed=SEEDS[0], share=share, prune_only=True)
        files[str(share)] = contest.file(answer["shapes"], f"modelopt-{share}")
    measured = contest.measured(files, _SECONDS)
    ratios = {share: measured.ratio(str(share), "ours").value for share in MODELOPT_SHARES}
    slower = [share for share in MODELOPT_SHARES if ratios[share] >= 1]
    return min(slower or MODELOPT_SHARES, key=lambda share: abs(np.log(ratios[share])))


def _table(
    float_score: float, pruned: dict[str, list[Any]], us: dict[str, float], predicted: dict[str, float]
) -> list[dict[str, str]]:
    lines = [
        {
            "who": "float, whole; latency of its W8A8",
            "top1 %": f"{float_score:.2f}",
            "measured us": f"{us['whole']:.0f}",
            "predicted us": f"{predicted['whole']:.0f}",
        }
    ]
    for side, answers in pruned.items():
        names = [f"{side} {seed}" for seed in SEEDS]
        lines.append(
            {
                "who": f"{side} pruned W8A8",
                "top1 %": ", ".join(f"{answer['test']:.2f}" for answer in answers),
                "measured us": ", ".join(f"{us[name]:.0f}" for name in names),
                "predicted us": ", ".join(f"{predicted[name]:.0f}" for name in names),
                "rate": f"{answers[0]['rate']:g}",
            }
        )
    return lines
