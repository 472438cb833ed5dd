"""How fast is our int8 file beside a peer's on the same runtime, one thread, and what do both gain over float?

Everything is interleaved in one process; accuracy plays no part here, so ResNet-18 has random weights. Which kernels
a runtime has depends on the processor: the record names its instruction sets.
"""

from __future__ import annotations

from pathlib import Path

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.float_networks import float_network
from bitwright.experiments.benchmarks.ours import quantize_ours
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.measure.files import measure_in_subprocess
from bitwright.hw_constraints.measure.interleaving import Measurement

ROW = "latency_int8"
NETWORKS = ("mobilenet_v2", "resnet18")
PEERS = {
    "onnxruntime": (("ort", "min_max"),),
    "openvino": (("ort", "min_max"), ("nncf", "fast_bias_correction")),
}
MAX_SECONDS = 120.0
OURS = "bitwright"
FLOAT = "float"


def run(bench: Bench) -> list[Record]:
    """Measures each network on each runtime."""
    records = []
    for network in NETWORKS:
        ours = quantize_ours(
            float_network(network, bench.home),
            target="x86-vnni",
            calibration=bench.sample.calibration_file,
            file=bench.ours / ROW / f"{network}.onnx",
        )
        for runtime in PEERS:
            records += _on_runtime(bench, network, runtime, ours.file)
    return records


def _on_runtime(bench: Bench, network: str, runtime: str, ours: Path) -> list[Record]:
    files = {OURS: ours, FLOAT: bench.float_file(network)}
    versions: dict[str, str] = {}
    for name, method in PEERS[runtime]:
        peer = bench.peer(name, method, network, scored=False)
        files[peer.job.name] = Path(peer.answer.file)
        versions |= peer.answer.versions
    measured = measure_in_subprocess(
        {name: (file, runtime) for name, file in files.items()}, threads=1, max_seconds=MAX_SECONDS
    )
    table = _table(measured, list(files), f"{network}, {runtime}")
    ratios = {name: measured.ratio(OURS, name) for name in files if name not in (OURS, FLOAT)}
    return [
        record(
            f"{ROW}.{network}.{runtime}.against_{name.split()[0]}",
            area="hw_constraints",
            value=ratio.value,
            unit=f"× {name}",
            n=ratio.rounds,
            reach=Reach("≤", 1.03, of="high"),
            spread=(ratio.low, ratio.high),
            peers=versions,
            table=table,
        )
        for name, ratio in ratios.items()
    ]


def _table(measured: Measurement, names: list[str], where: str) -> list[dict[str, str]]:
    lines = []
    for name in names:
        ratio, latency = measured.ratio(name, FLOAT), measured.latency(name)
        lines.append(
            {
                "where": where,
                "who": name,
                "÷ float": f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]" if name != FLOAT else "1",
                "median ms": f"{latency.median_us / 1e3:.2f}",
                "rounds": str(latency.n),
                "load": f"{measured.load_before:.1f}",
            }
        )
    return lines
