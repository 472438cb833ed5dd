"""Does the proof say of anyone's file what the runtime really ran, and does it name the causes right?

Files of three peers: each statement of the proof is checked against the runtime's own trace, read a second time.
Planted causes: small files, each with one fault whose layer the runtime then runs in float, as its trace shows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.planted import CAUSES, MIDDLE, QdqFile
from bitwright.experiments.benchmarks.raw_trace import claimed, ran
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.measure.files import measure_in_subprocess
from bitwright.hw_constraints.proof import ProofReport, State, prove

ROW = "proof_peers"
NETWORK = "mobilenet_v2"
PEERS = (("ort", "min_max"), ("modelopt", "int8"), ("brevitas", "int8"), ("aimet", "int8"))
RUNTIMES = ("onnxruntime", "openvino")


def run(bench: Bench) -> list[Record]:
    """Proves every file on every runtime, and every planted cause."""
    versions: dict[str, str] = {}
    lines, layers, wrong = [], 0, 0
    for name, method in PEERS:
        peer = bench.peer(name, method, NETWORK)
        versions |= peer.answer.versions
        for runtime in RUNTIMES:
            report = prove(Path(peer.answer.file), runtime)
            said, traced = claimed(report), ran(report)
            layers += said.total()
            wrong += max((said - traced).total(), (traced - said).total())
            lines.append(_line(peer.job.name, report, bench.float_file(NETWORK)))
    planted = [planted_line(cause, runtime) for runtime, causes in CAUSES.items() for cause in causes]
    named = sum(line["named"] == line["planted"] and line["ran in"] == "float" for line in planted)
    common: dict[str, Any] = {"area": "hw_constraints", "peers": versions}
    return [
        record(
            f"{ROW}.layers_unlike_trace",
            value=float(wrong),
            unit="layers",
            n=layers,
            reach=Reach("=", 0.0),
            table=lines,
            **common,
        ),
        record(
            f"{ROW}.causes_named",
            value=float(named),
            unit="causes",
            n=len(planted),
            reach=Reach("=", float(len(planted))),
            table=planted,
            **common,
        ),
    ]


def planted_line(cause: Callable[[QdqFile], onnx.ModelProto], runtime: str) -> dict[str, str]:
    """Proves one planted file: the cause, what the proof names, and whether the trace agrees that a layer is float."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "planted.onnx"
        onnx.save(cause(QdqFile()), file)
        report = prove(file, runtime, runs=2)
        in_float = {kind for kind, _ in ran(report)} & {"float"}
    layer = next(layer for layer in report.layers if layer.name == MIDDLE)
    return {
        "runtime": runtime,
        "planted": cause.__name__,
        "ran in": "float" if in_float and layer.state is State.FLOAT else "int8",
        "named": ", ".join(layer.reason.causes) if layer.reason else "",
        "in words": str(layer.reason or ""),
    }


def _line(who: str, report: ProofReport, float_file: Path) -> dict[str, str]:
    file = Path(report.file)
    measured = measure_in_subprocess({"float": (float_file, report.runtime), "int8": (file, report.runtime)})
    ratio = measured.ratio("int8", "float")
    reasons = [layer.reason for layer in report.layers if layer.is_weighted and layer.reason]
    causes = sorted({cause for reason in reasons for cause in reason.causes})
    return {
        "file of": who,
        "runtime": report.runtime,
        "int8 ÷ float": f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
        "MACs proven int8": f"{report.int8_mac_share:.1%}",
        "layers in float": str(len(reasons)),
        "because": ", ".join(causes),
    }
