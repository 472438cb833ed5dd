"""By how much does peak memory grow when calibration goes from 64 images to 2,048?

The same 64 images are gone through again and again, so that the growth is the calibration's, not the data's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.driver import PeerJob, run_peer
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "calibrate_memory"
NETWORK = "mobilenet_v2"
IMAGES = 64
REPEATS = 32


def run(bench: Bench) -> list[Record]:
    """Peak resident memory of two processes, one with each number of images."""
    few = bench.peer_job(OURS, "x86-vnni", NETWORK, scored=False, calibration=_first_images(bench))
    peaks = [_peak_mb(bench, few), _peak_mb(bench, replace(few, repeat=REPEATS))]
    return [
        record(
            f"{ROW}.growth",
            area="quant",
            value=peaks[1] - peaks[0],
            unit="MB",
            n=IMAGES * REPEATS,
            reach=Reach("≤", 50.0),
            table=[
                {"images": IMAGES, "peak MB": f"{peaks[0]:.0f}"},
                {"images": IMAGES * REPEATS, "peak MB": f"{peaks[1]:.0f}"},
            ],
        )
    ]


def _first_images(bench: Bench) -> Path:
    file = bench.cache / f"{bench.sample.calibration_file.stem}-first-{IMAGES}.npy"
    if not file.exists():
        np.save(file, np.load(bench.sample.calibration_file, mmap_mode="r")[:IMAGES])
    return file


def _peak_mb(bench: Bench, job: PeerJob) -> float:
    return run_peer(job, home=bench.home, cache=bench.peers, fresh=True).answer.peak_mb
