"""How near does W8A8 PTQ of MobileNetV2 (ImageNet weights) stay to its float network, ours beside the peers'?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.float_networks import float_network
from bitwright.experiments.benchmarks.metrics import agreement_percent, sqnr_db, top1_drop_points
from bitwright.experiments.benchmarks.onnx_logits import onnx_logits
from bitwright.experiments.benchmarks.ours import quantize_ours
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "w8a8_mobilenetv2"
NETWORK = "mobilenet_v2"
PEERS = (
    ("ort", "min_max"),
    ("ort", "percentile"),
    ("torchao", "x86"),
    ("nncf", "fast_bias_correction"),
    ("nncf", "bias_correction"),
    ("modelopt", "int8"),
    ("brevitas", "int8"),
    ("aimet", "int8"),
)


def run(bench: Bench) -> list[Record]:
    """Scores everybody's 8-bit network on the 800 pictures."""
    sample = bench.sample
    reference = bench.float_logits(NETWORK)
    ours = quantize_ours(
        float_network(NETWORK, bench.home),
        target="x86-vnni",
        calibration=sample.calibration_file,
        file=bench.ours / ROW / "quantized.onnx",
    )
    logits = onnx_logits(ours.file, sample.scored_file)
    lines = [_line("bitwright", reference, logits, sample.labels)]
    versions: dict[str, str] = {}
    for name, method in PEERS:
        peer = bench.peer(name, method, NETWORK)
        lines.append(_line(peer.job.name, reference, peer.score(sample.scored_file), sample.labels))
        versions |= peer.answer.versions
    agreement, sqnr = agreement_percent(reference, logits), sqnr_db(reference, logits)
    drop = top1_drop_points(reference, logits, sample.labels)
    common: dict[str, Any] = {"area": "quant", "n": len(sample.labels), "peers": versions, "table": lines}
    return [
        record(
            f"{ROW}.agreement",
            value=agreement.value,
            unit="%",
            reach=Reach("≥", 95.0),
            spread=agreement.interval,
            **common,
        ),
        record(f"{ROW}.sqnr", value=sqnr.value, unit="dB", reach=Reach("≥", 17.5), spread=sqnr.interval, **common),
        record(f"{ROW}.top1_drop", value=drop.value, unit="points", spread=drop.interval, **common),
    ]


def _line(
    who: str, reference: npt.NDArray[np.float32], logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> dict[str, str]:
    return {
        "who": who,
        "agreement %": f"{agreement_percent(reference, logits):.2f}",
        "SQNR dB": f"{sqnr_db(reference, logits):.2f}",
        "top-1 drop, points": f"{top1_drop_points(reference, logits, labels):.2f}",
    }
