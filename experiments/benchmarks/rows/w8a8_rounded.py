"""W8A8 of MobileNetV2 with equalization and rounding in view of the inputs: how near, and in what time, beside NNCF?

Ours and NNCF's two methods run in this run, each in a process of its own on one thread; files are scored on ONNX
Runtime or by the peer itself, on pictures that nobody has calibrated with.
"""

from __future__ import annotations

from typing import Any

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.metrics import agreement_percent, sqnr_db, top1_drop_points
from bitwright.experiments.benchmarks.peers.driver import PeerResult, run_peer
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "w8a8_rounded"
NETWORK = "mobilenet_v2"
SIDES = (
    (OURS, "x86-vnni,gptq"),
    (OURS, "x86-vnni,nearest"),
    (OURS, "x86-vnni,equalized"),
    ("nncf", "fast_bias_correction"),
    ("nncf", "bias_correction"),
)


def run(bench: Bench) -> list[Record]:
    """Quantizes anew, so that times are of one run."""
    jobs = [bench.peer_job(name, method, NETWORK, scored=name != OURS) for name, method in SIDES]
    results = [run_peer(job, home=bench.home, cache=bench.peers, fresh=True) for job in jobs]
    labels, reference = bench.sample.labels, bench.float_logits(NETWORK)
    logits = [result.score(bench.sample.scored_file) for result in results]
    common: dict[str, Any] = {
        "area": "quant",
        "n": len(labels),
        "peers": {name: version for result in results for name, version in result.answer.versions.items()},
        "table": [_line(bench, result) for result in results],
    }
    agreement, sqnr = agreement_percent(reference, logits[0]), sqnr_db(reference, logits[0])
    drop = top1_drop_points(reference, logits[0], labels)
    ours, *_, full = [result.answer.wall_s for result in results]
    return [
        record(
            f"{ROW}.agreement",
            value=agreement.value,
            unit="%",
            reach=Reach("≥", 97.5),
            spread=agreement.interval,
            **common,
        ),
        record(f"{ROW}.sqnr", value=sqnr.value, unit="dB", reach=Reach("≥", 23.5), spread=sqnr.interval, **common),
        record(
            f"{ROW}.top1_drop",
            value=-drop.value,
            unit="points gained",
            reach=Reach("≥", -1.0, of="low"),
            spread=(-drop.high, -drop.low),
            **common,
        ),
        record(f"{ROW}.wall", value=ours, unit="s", reach=Reach("≤", full), **{**common, "n": 1}),
    ]


def _line(bench: Bench, result: PeerResult) -> dict[str, str]:
    reference, logits = bench.float_logits(NETWORK), result.score(bench.sample.scored_file)
    return {
        "who": result.job.name,
        "agreement %": f"{agreement_percent(reference, logits):.2f}",
        "SQNR dB": f"{sqnr_db(reference, logits):.2f}",
        "top-1 drop, points": f"{top1_drop_points(reference, logits, bench.sample.labels):.2f}",
        "wall s": f"{result.answer.wall_s:.1f}",
        "peak MB": f"{result.answer.peak_mb:.0f}",
    }
