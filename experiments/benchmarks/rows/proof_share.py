"""Which share of conv and linear MACs of our own files is proven to run in int8, and is the wrong scheme called so?

The wrong scheme: a file for TensorRT (symmetric s8) given to ONNX Runtime, whose fused kernels want u8 activations.
It recodes single layers from s8 to u8 by itself where nothing else reads the codes; the trace tells which.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.float_networks import float_network
from bitwright.experiments.benchmarks.ours import quantize_ours
from bitwright.experiments.benchmarks.raw_trace import claimed, ran
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.proof import ProofReport, prove

ROW = "proof_share"
NETWORKS = ("mobilenet_v2", "resnet18")
RUNTIMES = ("onnxruntime", "openvino")
IMAGES = 16  # which kernels run does not hang on how well the ranges are known
FINDINGS = 1  # the exit code of a command that found something


def run(bench: Bench) -> list[Record]:
    """Proves both networks on both runtimes, then the wrong scheme of both on ONNX Runtime."""
    records = []
    for network in NETWORKS:
        right = _file(bench, network, "x86-vnni")
        for runtime in RUNTIMES:
            report = prove(right, runtime)
            records.append(
                record(
                    f"{ROW}.{network}.{runtime}",
                    area="hw_constraints",
                    value=100 * report.int8_mac_share,
                    unit="% of MACs",
                    n=_weighted(report),
                    reach=Reach("=", 100.0),
                )
            )
        records += _wrong_scheme(network, _file(bench, network, "tensorrt-orin"))
    return records


def _wrong_scheme(network: str, file: Path) -> list[Record]:
    report = prove(file, "onnxruntime")
    reasons = Counter(str(layer.reason) for layer in report.layers if layer.is_weighted and layer.reason)
    command = [str(Path(sys.executable).parent / "bitwright"), "prove", str(file), "--runtime", "onnxruntime"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    table = [{"network": network, "layers": str(count), "reason": reason} for reason, count in reasons.most_common()]
    name = f"{ROW}.{network}.wrong_scheme"
    n = _weighted(report)
    return [
        record(
            name,
            area="hw_constraints",
            value=100 * report.int8_mac_share,
            unit="% of MACs",
            n=n,
            reach=Reach("=", 0.0),
            table=table,
        ),
        record(
            f"{name}.layers_unlike_trace",
            area="hw_constraints",
            value=float(_differing(report)),
            unit="layers",
            n=n,
            reach=Reach("=", 0.0),
        ),
        record(
            f"{name}.unexplained",
            area="hw_constraints",
            value=float(n - reasons.total() - _int8_layers(report)),
            unit="layers in float without a reason",
            n=n,
            reach=Reach("=", 0.0),
        ),
        record(
            f"{name}.exit_code",
            area="experiments",
            value=float(ended.returncode),
            unit="exit code of `bitwright prove`",
            n=1,
            reach=Reach("=", float(FINDINGS)),
        ),
    ]


def _file(bench: Bench, network: str, target: str) -> Path:
    few = bench.cache / f"{bench.sample.calibration_file.stem}-first-{IMAGES}.npy"
    if not few.exists():
        np.save(few, np.load(bench.sample.calibration_file, mmap_mode="r")[:IMAGES])
    file = bench.ours / ROW / f"{network}-{target}.onnx"
    return quantize_ours(float_network(network, bench.home), target=target, calibration=few, file=file).file


def _differing(report: ProofReport) -> int:
    """Layers whose state is not what the runtime's trace shows, read a second time."""
    said, traced = claimed(report), ran(report)
    return max((said - traced).total(), (traced - said).total())


def _weighted(report: ProofReport) -> int:
    return sum(layer.is_weighted for layer in report.layers)


def _int8_layers(report: ProofReport) -> int:
    return sum(layer.is_weighted and layer.state == "int8" for layer in report.layers)
