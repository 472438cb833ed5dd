"""Does it matter which 16 of 100 photographs calibrate MobileNetV2? The first, of few classes; random; coverage."""

from __future__ import annotations

import numpy as np

from bitwright.experiments.benchmarks.calibration_ways import Subject, compared
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.float_networks import example_inputs, float_network
from bitwright.experiments.benchmarks.records import Record
from bitwright.quant.capture import capture

ROW = "calibration_choice"
NETWORK = "mobilenet_v2"
SCORED_EVERY = 8  # of the 800 pictures


def run(bench: Bench) -> list[Record]:
    """Chooses from random halves of the 200 pictures, which are sorted by class."""
    scored = bench.cache / ROW / "scored.npy"
    scored.parent.mkdir(parents=True, exist_ok=True)
    np.save(scored, np.load(bench.sample.scored_file, mmap_mode="r")[::SCORED_EVERY])
    subject = Subject(
        captured=capture(float_network(NETWORK, bench.home), example_inputs()),
        candidates=np.load(bench.sample.calibration_file, mmap_mode="r"),
        scored=scored,
        reference=bench.float_logits(NETWORK)[::SCORED_EVERY],
    )
    return compared(ROW, subject, bench.cache)
