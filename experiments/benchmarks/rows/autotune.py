"""Is a file whose Q/DQ were placed by measurement faster than float, than full int8 and than the peers' files?

One thread, each network on each runtime. All files are timed against each other in fresh processes, after the search
and apart from it. Agreement with float is judged on pictures that the search has not seen: real ones for MobileNetV2
with its ImageNet weights; the others have random weights, so theirs says how much of a network's function is kept and
nothing about a task. A network counts as 5 % faster where it is so on one of the runtimes at least; the counts for
each runtime are printed beside.

The peers' files are handed to the tuner: where one of them is faster than what the search has found, and no less
faithful than full int8, it is the artefact, and the table says so.

The search takes minutes; what it has measured is kept, and the row goes on from there when it is run again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bitwright.experiments.benchmarks.autotune_networks import NETWORKS, TunedNetwork, as_path
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.driver import PeerJob, run_peer
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.autotune import Budget, Tuned, autotune
from bitwright.hw_constraints.autotune.fidelity import paired_difference
from bitwright.hw_constraints.autotune.journal import Journal
from bitwright.hw_constraints.autotune.placements import Placements, measure_placements
from bitwright.hw_constraints.measure import Ratio
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel

ROW = "autotune"
TARGET = "x86-vnni"
PEERS = {
    "onnxruntime": (("ort", "min_max"),),
    "openvino": (("ort", "min_max"), ("nncf", "fast_bias_correction")),
}
TUNED, FULL, FLOAT = "tuned", "full int8", "float"
BUDGET = Budget(tries=40, minutes=4.0)
NEVER_SLOWER, FASTER = 1.03, 0.95
_PROCESSES, _HALF_WIDTH, _SECONDS = 10, 0.005, 1.0


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One network on one runtime."""

    network: str
    runtime: str
    tuned: Tuned
    measured: Placements
    names: tuple[str, ...]
    versions: Mapping[str, str]

    @property
    def best(self) -> str:
        """The fastest of the others."""
        return min((name for name in self.names if name != TUNED), key=self.measured.median_us)

    @property
    def against_best(self) -> Ratio:
        """The tuned file's time in relation to it."""
        return self.measured.ratio(TUNED, self.best)


def run(bench: Bench) -> list[Record]:
    """Tunes and measures each network on each runtime."""
    cases = [case for name, make in NETWORKS.items() for case in _of_network(bench, make(bench), name)]
    table = [line for case in cases for line in _lines(case)]
    records = [each for case in cases for each in _records(case, table)]
    faster = {
        runtime: {case.network for case in cases if case.runtime == runtime and case.against_best.value <= FASTER}
        for runtime in PEERS
    }
    everywhere = set().union(*faster.values())
    for figure, names, reach in [
        ("five_percent_faster", everywhere, Reach("≥", 2)),
        *((f"five_percent_faster.{runtime}", names, None) for runtime, names in faster.items()),
    ]:
        records.append(
            record(f"{ROW}.{figure}", area="hw_constraints", value=len(names), unit="of 4 networks", n=len(NETWORKS),
                   reach=reach, table=table)
        )  # fmt: skip
    return records


def _of_network(bench: Bench, network: TunedNetwork, name: str) -> list[_Case]:
    folder = bench.ours / ROW / name
    folder.mkdir(parents=True, exist_ok=True)
    captured = capture(network.model, (torch.from_numpy(network.calibration[:1]),))
    quantized = quantize(captured, load_target(TARGET).scheme(), map(torch.from_numpy, network.calibration[:, None]))
    reference = fold_batch_norm(captured)
    files = {
        FLOAT: export_float(reference.graph, folder / f"{name}-float.onnx"),
        FULL: export_onnx_qdq(quantized, folder / f"{name}-full.onnx"),
    }
    return [_on_runtime(bench, network, runtime, quantized, reference, files) for runtime in PEERS]


def _on_runtime(
    bench: Bench,
    network: TunedNetwork,
    runtime: str,
    quantized: QuantizedModel,
    reference: CapturedModel,
    ours: Mapping[str, Path],
) -> _Case:
    folder = bench.ours / ROW / network.name
    calibration = as_path(folder, f"{network.name}-calibration", network.calibration)
    others, versions = dict[str, Path](), dict[str, str]()
    for peer, method in PEERS[runtime]:
        job = PeerJob(peer=peer, method=method, network=network.name, float_file=ours[FLOAT], calibration=calibration)
        answer = run_peer(job, home=bench.home, cache=bench.peers).answer
        others[job.name] = Path(answer.file)
        versions |= answer.versions
    tuned = autotune(
        quantized,
        reference,
        runtime=runtime,
        search_samples=[{"input": image[None]} for image in network.search],
        held_out=[{"input": image[None]} for image in network.held_out],
        out=folder / runtime,
        budget=BUDGET,
        others=others,
    )
    files = {FLOAT: ours[FLOAT], FULL: ours[FULL], TUNED: tuned.file, **others}
    measured = _measure(files, runtime, folder / f"{runtime}-measured.jsonl")
    return _Case(
        network=network.name, runtime=runtime, tuned=tuned, measured=measured, names=tuple(files), versions=versions
    )


def _measure(files: Mapping[str, Path], runtime: str, kept: Path) -> Placements:
    """All files against each other; measured once for the same contents."""

    def find() -> dict[str, Any]:
        measured = measure_placements(
            files, runtime=runtime, threads=1, processes=_PROCESSES, half_width=_HALF_WIDTH, seconds=_SECONDS
        )
        return {"times_us": measured.to_json()}

    contents = {name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for name, file in files.items()}
    answer = Journal(kept, {}).ask({"files": contents, "processes": _PROCESSES}, find)
    return Placements.from_json(answer["times_us"])


def _records(case: _Case, table: list[dict[str, str]]) -> list[Record]:
    where, ratio = f"{ROW}.{case.network}.{case.runtime}", case.against_best
    artefact, full = case.tuned.fidelity["artefact"], case.tuned.fidelity[FULL]
    change, spread = paired_difference(artefact.agreement, full.agreement)
    return [
        record(f"{where}.against_best", area="hw_constraints", value=ratio.value, unit=f"× {case.best}",
               n=len(case.measured.times_us), reach=Reach("≤", NEVER_SLOWER, of="high"),
               spread=(ratio.low, ratio.high), peers=case.versions, table=table),
        record(f"{where}.agreement_gained", area="hw_constraints", value=100 * change, unit="points",
               n=len(full.agreement), reach=Reach("≥", 0.0, of="high"),
               spread=(100 * (change - spread), 100 * (change + spread)), peers=case.versions, table=table),
    ]  # fmt: skip


def _what(tuned: Tuned) -> str:
    """Whose file the artefact is, or how many of its sites are in float."""
    if tuned.decision is None:
        return f" (the file of {tuned.choice}, which was faster)"
    return f" ({len(tuned.floats)} of {tuned.sites} sites in float)"


def _lines(case: _Case) -> list[dict[str, str]]:
    tuned = case.tuned
    lines = []
    for name in case.names:
        ratio = case.measured.ratio(name, FLOAT)
        fidelity = {TUNED: tuned.fidelity["artefact"], FULL: tuned.fidelity[FULL]}.get(name)
        lines.append(
            {
                "where": f"{case.network}, {case.runtime}",
                "who": name + _what(tuned) * (name == TUNED),
                "median ms": f"{case.measured.median_us(name) / 1e3:.3f}",
                "÷ float": "1" if name == FLOAT else f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
                "agreement %": "–" if fidelity is None else f"{fidelity.agreement_percent:.2f}",
                "SQNR dB": "–" if fidelity is None else f"{fidelity.mean_sqnr_db:.2f}",
                "tries": str(tuned.tries) if name == TUNED else "–",
            }
        )
    return lines
