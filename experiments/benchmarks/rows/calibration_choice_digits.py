"""Does it matter which 16 of 100 digits calibrate the digits' network? The first, random ones, coverage."""

from __future__ import annotations

import numpy as np
import torch

from bitwright.experiments.benchmarks.calibration_ways import Subject, compared
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import LIBRARY
from bitwright.experiments.benchmarks.records import Record
from bitwright.experiments.benchmarks.trained_networks import trained_network
from bitwright.quant.capture import capture

ROW = "calibration_choice_digits"


def run(bench: Bench) -> list[Record]:
    """Trains by the recipe `digits`, unless that has been done, and chooses from random halves of its 200 digits."""
    trained = trained_network("digits", library=bench.home / LIBRARY, cache=bench.cache)
    candidates = np.load(trained.calibration, mmap_mode="r")
    subject = Subject(
        captured=capture(trained.network(), (torch.from_numpy(np.array(candidates[:1])),)),
        candidates=candidates,
        scored=trained.scored,
        reference=trained.float_logits,
    )
    return compared(ROW, subject, bench.cache)
