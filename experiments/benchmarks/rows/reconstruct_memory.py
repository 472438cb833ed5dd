"""How much memory does rounding in view of the inputs take on ResNet-50 at 224 x 224?

A process of its own captures, calibrates, rounds and exports; its peak resident memory counts, all of it. The weights
are seeded random ones: what they are does not change what is held.
"""

from __future__ import annotations

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.imagenet_sample import CALIBRATION_IMAGES
from bitwright.experiments.benchmarks.peers.driver import PeerJob, run_peer
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "reconstruct_memory"
NETWORK = "resnet50"
METHODS = ("x86-vnni,gptq", "x86-vnni,adaround")


def run(bench: Bench) -> list[Record]:
    """Peak resident memory of one process a method, on all pictures of the calibration set."""
    return [_peak(bench, method) for method in METHODS]


def _peak(bench: Bench, method: str) -> Record:
    job = PeerJob(
        peer=OURS,
        method=method,
        network=NETWORK,
        float_file=bench.float_file(NETWORK),
        calibration=bench.sample.calibration_file,
    )
    answer = run_peer(job, home=bench.home, cache=bench.peers, fresh=True).answer
    return record(
        f"{ROW}.{method.rpartition(',')[2]}",
        area="quant",
        value=answer.peak_mb,
        unit="MB",
        n=CALIBRATION_IMAGES,
        reach=Reach("≤", 1500.0),
        table=[{"method": method, "peak MB": f"{answer.peak_mb:.0f}", "wall s": f"{answer.wall_s:.1f}"}],
    )
