"""How long do calibration on 200 images and export take, beside ONNX Runtime's own static quantization?

Both as they come, with all cores, each in a process of its own; loading the network does not count.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.driver import run_peer
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.measure.statistics import paired_ratio

ROW = "calibrate_wall"
NETWORK = "mobilenet_v2"
ROUNDS = 9


def run(bench: Bench) -> list[Record]:
    """Alternates ours and theirs, the order turned round each time."""
    jobs = [
        replace(bench.peer_job(name, method, NETWORK, scored=False), threads=None)
        for name, method in ((OURS, "x86-vnni"), ("ort", "min_max"))
    ]
    times: dict[str, list[float]] = {job.peer: [] for job in jobs}
    memory: dict[str, float] = {}
    versions: dict[str, str] = {}
    for turn in range(ROUNDS):
        for job in jobs if turn % 2 else reversed(jobs):
            answer = run_peer(job, home=bench.home, cache=bench.peers, fresh=True).answer
            times[job.peer].append(answer.wall_s)
            memory[job.peer] = answer.peak_mb
            versions |= answer.versions
    ratio = paired_ratio(times[OURS], times["ort"])
    table = [
        {
            "who": job.name,
            "÷ ort": f"{ratio.value:.3f}" if job.peer == OURS else "1",
            "median s": f"{median(times[job.peer]):.1f}",
            "peak MB": f"{memory[job.peer]:.0f}",
        }
        for job in jobs
    ]
    return [
        record(
            f"{ROW}.ratio",
            area="quant",
            value=ratio.value,
            unit="× ort",
            n=ROUNDS,
            reach=Reach("≤", 1.03, of="high"),
            spread=(ratio.low, ratio.high),
            peers=versions,
            table=table,
        )
    ]
