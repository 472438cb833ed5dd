"""W4A8 of MobileNetV2 by training on 200 photographs without labels, the float network for a teacher.

The photographs are of the first 200 of 1,000 classes and the scored ones of the others, so what is learned must hold
for things never seen.

Every layer in four bits; the row `qat_mobilenetv2_depthwise` has the depthwise layers in eight. A run that is cut goes
on where it was: what counts is the processor time of quantizing and training on one core, whatever ran beside it or lay
between; on two idle cores it takes less.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.distilled_mobilenet import DistilledMobileNet, Settings
from bitwright.experiments.benchmarks.float_networks import float_network
from bitwright.experiments.benchmarks.imagenet_sample import CALIBRATION_IMAGES
from bitwright.experiments.benchmarks.kept import digest
from bitwright.experiments.benchmarks.metrics import agreement_percent, sqnr_db, top1_drop_points
from bitwright.experiments.benchmarks.onnx_logits import onnx_logits
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.console import Console

ROW = "qat_mobilenetv2"
NETWORK = "mobilenet_v2"
# Of one scheme.
MOST_SECONDS = 3600.0
_CODE = ("qat", "quant", "experiments.benchmarks.distilled_mobilenet")
# Seen before this row was written, by the same protocol on a machine of the kind.
_EARLIER = (
    {"who": "best PTQ of a peer (Brevitas: equalization, GPTQ, bias correction)", "top-1 drop, points": "14.8"},
    {"who": "LSQ distillation end to end, 1,000 steps of 16, from MSE steps", "top-1 drop, points": "12.9"},
)


@dataclass(frozen=True)
class _Trained:
    file: Path
    seconds: float
    steps: int


def run(bench: Bench) -> list[Record]:
    """Trains, or goes on, and scores the file on ONNX Runtime."""
    return trained_records(bench, "all", Settings(depthwise_int8=False), at_most=4.0)


def trained_records(bench: Bench, name: str, settings: Settings, *, at_most: float) -> list[Record]:
    """The figures of one scheme.

    Args:
        bench: the surroundings.
        name: of the scheme, in the names of its records.
        settings: of its training.
        at_most: points of top-1 that it may lose.
    """
    found = _train(bench, name, settings)
    return list(_records(bench, name, found, at_most, [_line(bench, name, found), *_EARLIER]))


def _train(bench: Bench, name: str, settings: Settings) -> _Trained:
    sample = bench.sample
    torch.set_num_threads(1)
    images = torch.from_numpy(np.load(sample.calibration_file))
    folder = bench.ours / ROW / f"{name}-{digest(f'{asdict(settings)} {sample.digest}', _CODE)}"
    network = float_network(NETWORK, bench.home)
    training = DistilledMobileNet(network, settings, sample.paths[:CALIBRATION_IMAGES], images, folder)
    with Console().track(f"training {name}, steps", settings.steps) as advance:
        for step, loss in training.run(MOST_SECONDS - training.spent_s):
            advance(step, f"loss {loss:.4f}")
    return _Trained(training.export(), training.spent_s, training.step)


def _records(bench: Bench, name: str, found: _Trained, at_most: float, table: list[dict[str, str]]) -> Iterator[Record]:
    reference, logits, labels = _scored(bench, found)
    agreement, sqnr = agreement_percent(reference, logits), sqnr_db(reference, logits)
    drop = top1_drop_points(reference, logits, labels)
    common: dict[str, Any] = {"area": "qat", "n": len(labels), "table": table}
    yield record(
        f"{ROW}.{name}.top1_drop",
        value=drop.value,
        unit="points",
        reach=Reach("≤", at_most),
        spread=drop.interval,
        **common,
    )
    yield record(f"{ROW}.{name}.agreement", value=agreement.value, unit="%", spread=agreement.interval, **common)
    yield record(f"{ROW}.{name}.sqnr", value=sqnr.value, unit="dB", spread=sqnr.interval, **common)
    yield record(
        f"{ROW}.{name}.wall", value=found.seconds / 60, unit="min", reach=Reach("≤", 60.0), **{**common, "n": 1}
    )


def _scored(bench: Bench, found: _Trained) -> tuple[Any, Any, Any]:
    logits = onnx_logits(found.file, bench.sample.scored_file)
    return bench.float_logits(NETWORK), logits, bench.sample.labels


def _line(bench: Bench, name: str, found: _Trained) -> dict[str, str]:
    reference, logits, labels = _scored(bench, found)
    return {
        "who": f"bitwright {name}, {found.steps} steps",
        "agreement %": f"{agreement_percent(reference, logits):.2f}",
        "SQNR dB": f"{sqnr_db(reference, logits):.2f}",
        "top-1 drop, points": f"{top1_drop_points(reference, logits, labels):.2f}",
        "minutes of one core": f"{found.seconds / 60:.1f}",
    }
