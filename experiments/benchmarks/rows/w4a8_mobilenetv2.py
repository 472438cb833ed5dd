"""W4A8 of MobileNetV2 after training: every layer in four bits, and the same with the depthwise layers in eight.

The peers' lines were recorded earlier by the same protocol, on a machine of the kind, and not run again: each takes
7 to 22 minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.metrics import agreement_percent, sqnr_db, top1_drop_points
from bitwright.experiments.benchmarks.peers.driver import PeerResult, run_peer
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "w4a8_mobilenetv2"
NETWORK = "mobilenet_v2"
METHODS = {"all": "x86-vnni,int4,gptq", "depthwise_int8": "x86-vnni,int4,depthwise_int8,gptq"}
# Brevitas 0.13.4 and AIMET 2.42.0, every layer in four bits per channel; the float network has 82.875 %.
_RECORDED = (
    ("brevitas: equalization, GPTQ, bias correction", "73.1", "6.9", "14.8", "510", "1600"),
    ("brevitas: equalization, GPFQ, bias correction", "71.3", "5.0", "16.6", "451", "1900"),
    ("aimet: AdaRound", "60.6", "4.8", "25.8", "1340", "3400"),
)
_COLUMNS = ("who", "agreement %", "SQNR dB", "top-1 drop, points", "wall s", "peak MB")


def run(bench: Bench) -> list[Record]:
    """Quantizes both anew and scores the files on ONNX Runtime."""
    results = {
        name: run_peer(
            bench.peer_job(OURS, method, NETWORK, scored=False), home=bench.home, cache=bench.peers, fresh=True
        )
        for name, method in METHODS.items()
    }
    table = [_line(bench, result) for result in results.values()]
    recorded = [dict(zip(_COLUMNS, (f"{who} (recorded earlier)", *rest), strict=True)) for who, *rest in _RECORDED]
    return [each for name, result in results.items() for each in _records(bench, name, result, [*table, *recorded])]


def _records(bench: Bench, name: str, result: PeerResult, table: list[dict[str, str]]) -> Iterator[Record]:
    reference, logits, labels = (
        bench.float_logits(NETWORK),
        result.score(bench.sample.scored_file),
        bench.sample.labels,
    )
    agreement, sqnr = agreement_percent(reference, logits), sqnr_db(reference, logits)
    drop = top1_drop_points(reference, logits, labels)
    common: dict[str, Any] = {"area": "quant", "n": len(labels), "table": table}
    whole = name == "all"
    yield record(
        f"{ROW}.{name}.agreement",
        value=agreement.value,
        unit="%",
        reach=Reach("≥", 73.1) if whole else None,
        spread=agreement.interval,
        **common,
    )
    yield record(
        f"{ROW}.{name}.sqnr",
        value=sqnr.value,
        unit="dB",
        reach=Reach("≥", 6.9) if whole else None,
        spread=sqnr.interval,
        **common,
    )
    yield record(
        f"{ROW}.{name}.top1_drop",
        value=drop.value,
        unit="points",
        reach=Reach("≤", 14.8 if whole else 2.0),
        spread=drop.interval,
        **common,
    )
    yield record(
        f"{ROW}.{name}.wall",
        value=result.answer.wall_s,
        unit="s",
        reach=Reach("≤", 510.0) if whole else None,
        **{**common, "n": 1},
    )


def _line(bench: Bench, result: PeerResult) -> dict[str, str]:
    reference, logits = bench.float_logits(NETWORK), result.score(bench.sample.scored_file)
    figures = (
        result.job.name,
        f"{agreement_percent(reference, logits):.2f}",
        f"{sqnr_db(reference, logits):.2f}",
        f"{top1_drop_points(reference, logits, bench.sample.labels):.2f}",
        f"{result.answer.wall_s:.1f}",
        f"{result.answer.peak_mb:.0f}",
    )
    return dict(zip(_COLUMNS, figures, strict=True))
