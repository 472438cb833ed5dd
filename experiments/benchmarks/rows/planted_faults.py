"""Faults planted in files of public networks: whether the right layer in the right link is named, and no other.

What is planted is in `parity_faults.py`. Kind, network and place are drawn by `SEED`, which was chosen when the code
stood; a fault counts when it moves its layer's values by more than rounding does in ONNX Runtime. Polygraphy's `debug`
finds the first differing output of one pair of files; it names no link and hides what comes behind. What was found in
a network is kept until what judges changes, so that a run that was cut off goes on where it was.
"""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from bitwright.experiments.benchmarks.architectures import ARCHITECTURES, build
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.parity_faults import KINDS, Kind
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.console import Console
from bitwright.experiments.stage_store import source_hash
from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.onnx_import.origins import base_name
from bitwright.quant.parity import ChainParity, Inputs, Link, LinkParity, compare_chain, compare_links
from bitwright.quant.parity.torch_links import CapturedLink, EagerLink, SimulationLink
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel

ROW = "planted_faults"
_CODE = (
    *(f"quant.parity.{name}" for name in ("joining", "judge", "locate", "onnx_rounding", "opaque", "spread")),
    *(f"quant.parity_measures.{name}" for name in ("rounding", "rounding_noise", "thresholds")),
    *("experiments.benchmarks.parity_faults", f"experiments.benchmarks.rows.{ROW}"),
)
SEED = 716_2026
NETWORKS = (
    "mobilenet_v2", "mobilenet_v3_small", "resnet18", "squeezenet1_1", "shufflenet_v2_x1_0", "regnet_y_400mf",
    "ghostnet_100", "lcnet_050", "mnasnet0_5", "googlenet", "deit_tiny_patch16_224", "lraspp_mobilenet_v3_large",
)  # fmt: skip
ALONE, PAIRS = 6, 1  # cases for each network: one fault, two at once
ROUNDING = 2.0**-20  # of the largest value: eight units in the last place, as sums of a thousand terms round
THRESHOLDS = (0.1, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0)  # times what is allowed
# What is made from a wrong file has the same fault, and a runtime may make more of it there.
BEHIND = {
    "float file": ("behind a pass", "float file, optimised"),
    "quantized file": ("quantized file, optimised",),
    "behind a pass": (),
}
LINKS = {"float": "float file", "quantized": "quantized file", "passed": "behind a pass"}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A network with its files; `known` keeps what was found of pairs that no fault touches."""

    name: str
    module: torch.nn.Module
    captured: CapturedModel
    folded: CapturedModel
    quantized: QuantizedModel
    folder: Path
    inputs: tuple[Inputs, ...]
    known: dict[tuple[str, str], LinkParity] = field(default_factory=dict)

    def compare(self, first: Link, second: Link, inputs: Sequence[Inputs]) -> LinkParity:
        """Two links, once for each pair of files."""
        key = _form(first), _form(second)
        if key not in self.known:
            self.known[key] = compare_links(first, second, inputs)
        return self.known[key]


def _form(link: Link) -> str:
    return f"{link.name} {link.network.path}" if isinstance(link, OnnxRuntimeLink) else link.name


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A planted fault: in which link, and which tensor comes out wrong."""

    kind: str
    link: str
    tensor: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """Faults planted at once, and the files that hold them in place of the sound ones."""

    faults: tuple[Fault, ...]
    files: Mapping[str, Path]


@dataclass
class Tally:
    """What the cases gave; `alone` and `together` say of each case whether it was judged right."""

    table: list[dict[str, Any]] = field(default_factory=list)
    alone: list[bool] = field(default_factory=list)
    together: list[bool] = field(default_factory=list)
    severities: list[float] = field(default_factory=list)
    clean: list[float] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)


def run(bench: Bench) -> list[Record]:
    """Plants and looks."""
    torch.set_num_threads(1)
    install_library(bench.home)
    tally = Tally()
    with Console().track("networks", len(NETWORKS)) as advance:
        for done, name in enumerate(NETWORKS, 1):
            for part, found in _kept(name, done, bench).items():
                getattr(tally, part).extend(found)
            advance(done, name)
    return _records(tally, _of_clean_chains(bench))


def _kept(name: str, number: int, bench: Bench) -> dict[str, list[Any]]:
    """The tally of one network, from the file of an earlier run where the code is the same."""
    parts = [name, str(SEED), *(source_hash(f"bitwright.{module}") for module in _CODE)]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    file = bench.ours / ROW / f"{name}-{digest}.json"
    if not file.exists():
        tally = Tally()
        with tempfile.TemporaryDirectory() as folder:
            network = prepare(name, bench.home / LIBRARY, Path(folder))
            look(network, np.random.default_rng([SEED, number]), tally)
        gc.collect()  # modules refer to themselves
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(tally), ensure_ascii=False))
        partial.rename(file)
    kept: dict[str, list[Any]] = json.loads(file.read_text())
    return kept


def _of_clean_chains(bench: Bench) -> list[float]:
    """The worst result of every sound form that the row `clean_chains` has judged, over what is allowed."""
    kept = [json.loads(file.read_text())["lines"] for file in sorted((bench.ours / "clean_chains").glob("*.json"))]
    return [line["of what is allowed"] for lines in kept for line in lines if not line["problem"]]


def prepare(name: str, library: Path, folder: Path) -> Prepared:
    """Captures, quantizes and exports a network with seeded random weights."""
    module, args = build(next(each for each in ARCHITECTURES if each.name == name), library)
    images = [tuple(torch.randn_like(each) for each in args) for _ in range(5)]
    captured = capture(module, args)
    folded = fold_batch_norm(captured)
    quantized = quantize(captured, load_target("x86-vnni").scheme(), images[1:])
    export_float(folded.graph, folder / "float.onnx")
    export_onnx_qdq(quantized, folder / "quantized.onnx")
    return Prepared(
        name=name,
        module=module,
        captured=captured,
        folded=folded,
        quantized=quantized,
        folder=folder,
        inputs=(Inputs(args=images[0]),),
    )


def look(network: Prepared, draw: np.random.Generator, tally: Tally) -> None:
    """The sound network first, then its cases."""
    sound = chain(network, {}, upper=True)
    for pair in sound.pairs:
        tally.alarms += [f"{network.name}: {pair.second}: {each.tensor.name}" for each in pair.breaks]
        tally.alarms += [f"{network.name}: {pair.second}: {pair.problem}"] * bool(pair.problem)
        tally.clean += [each.own.severity for each in pair.layers if each.own]
    order = [KINDS[int(place)] for place in draw.permutation(len(KINDS))]
    for case in islice(cases(network, [[kind] for kind in order], draw), ALONE):
        judge_case(network, case, tally, tally.alone)
    twos = [[a, b] for a, b in pairwise(each for each in order if each.file != "passed")]
    for case in islice(cases(network, twos, draw), PAIRS):
        judge_case(network, case, tally, tally.together)


def cases(network: Prepared, kinds: Sequence[Sequence[Kind]], draw: np.random.Generator) -> Iterator[Case]:
    """Those that the network has a place for and that change values."""
    for group in kinds:
        folder = Path(tempfile.mkdtemp(dir=network.folder))  # its own name, which `known` tells files by
        files: dict[str, Path] = {}
        faults = [fault for kind in group if (fault := _plant(network, kind, files, folder, draw))]
        tensors = {fault.tensor.partition("@")[0] for fault in faults}
        if len(faults) == len(group) == len(tensors):
            yield Case(faults=tuple(faults), files=files)
        shutil.rmtree(folder, ignore_errors=True)


def _plant(
    network: Prepared, kind: Kind, files: dict[str, Path], folder: Path, draw: np.random.Generator
) -> Fault | None:
    source = network.folder / ("quantized.onnx" if kind.file == "quantized" else "float.onnx")
    before = files.get(kind.file, source)
    model = onnx.load(before)
    value = kind.plant(model, draw)
    if value is None:
        return None
    path = folder / f"{kind.file}.onnx"
    # Where one file holds two faults, the first one's is read until the second is known to change something.
    sound, planted = _value(onnx.load(before), value, network), _value(model, value, network)
    if sound.shape != planted.shape or np.abs(sound - planted).max() <= ROUNDING * np.abs(sound).max():
        return None
    onnx.save(model, path)
    shutil.copy(source.with_suffix(".provenance.json"), path.with_suffix(".provenance.json"))
    files[kind.file] = path
    return Fault(kind=kind.name, link=LINKS[kind.file], tensor=base_name(value))


def _value(model: onnx.ModelProto, value: str, network: Prepared) -> np.ndarray[Any, Any]:
    """What readers of a value get, from ONNX Runtime without optimisations."""
    read = {name for node in model.graph.node for name in node.output}
    name = f"{value}/dq" if f"{value}/dq" in read else value
    if name not in {each.name for each in model.graph.output}:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {each.name: arg.numpy() for each, arg in zip(session.get_inputs(), network.inputs[0].args, strict=True)}
    found: np.ndarray[Any, Any] = session.run([name], feeds)[0]
    return found


def chain(network: Prepared, files: Mapping[str, Path], *, upper: bool = False) -> ChainParity:
    """From the network to both files and what runtimes make of them; the part above the files where it is asked for."""
    folded = CapturedLink(network.folded, "batch norms folded")
    above: list[Link] = []
    if upper:
        above = [EagerLink(network.module, network.captured.graph), CapturedLink(network.captured)]
    float_file = files.get("float", network.folder / "float.onnx")
    quantized_file = files.get("quantized", network.folder / "quantized.onnx")
    links: list[Link] = [
        *above,
        folded,
        OnnxRuntimeLink(float_file, "disabled", "float file"),
        OnnxRuntimeLink(files.get("passed", float_file), "disabled", "behind a pass"),
        OnnxRuntimeLink(float_file, "all", "float file, optimised"),
        SimulationLink(network.quantized),
        OnnxRuntimeLink(quantized_file, "disabled", "quantized file"),
        OnnxRuntimeLink(quantized_file, "all", "quantized file, optimised"),
    ]
    origins = {"simulation": folded.name, "float file, optimised": "float file"}
    return compare_chain(links, network.inputs, made_from=origins, compare=network.compare)


def judge_case(network: Prepared, case: Case, tally: Tally, counter: list[bool]) -> None:
    """Right is every fault in its link at its layer, and no other layer anywhere; see `BEHIND`."""
    found = chain(network, case.files)
    blamed = {(pair.second, each.tensor.name): each for pair in found.pairs for each in pair.breaks}
    allowed = {fault: _layer(network, fault) for fault in case.faults}
    hits = [any((fault.link, name) in blamed for name in names) for fault, names in allowed.items()]
    places = {(link, name) for f, names in allowed.items() for link in (f.link, *BEHIND[f.link]) for name in names}
    others = [key for key in blamed if key not in places]
    right = all(hits) and not others and not any(pair.problem for pair in found.pairs)
    counter.append(right)
    if len(case.faults) == 1:
        (fault,) = case.faults
        tally.severities.append(_severity(found, fault, allowed[fault]))
    tally.table.append(
        {
            "network": network.name,
            "fault": " and ".join(fault.kind for fault in case.faults),
            "place": ", ".join(f"{fault.link}: {fault.tensor}" for fault in case.faults),
            "right": "yes" if right else "NO",
            "also blamed": "; ".join(f"{link}: {name}" for link, name in others[:3]),
            "missed": ", ".join(f.kind for f, hit in zip(case.faults, hits, strict=True) if not hit),
        }
    )


def _layer(network: Prepared, fault: Fault) -> frozenset[str]:
    """The tensors of the layer: those of the fused chain that the plan has around the tensor."""
    graph, names = network.quantized.captured.graph, {fault.tensor}
    for fused in network.quantized.plan.fused if fault.link.startswith("quantized") else ():
        chain_names = {str(ref) for name in fused for ref in graph.by_name[name].outputs}
        if fault.tensor in chain_names:
            names |= chain_names
    return frozenset(names)


def _severity(found: ChainParity, fault: Fault, names: frozenset[str]) -> float:
    pair = next(pair for pair in found.pairs if pair.second == fault.link)
    return max((each.own.severity for each in pair.layers if each.own and each.tensor.name in names), default=0.0)


def _records(tally: Tally, clean_chains: Sequence[float]) -> list[Record]:
    alone, together = len(tally.alone), len(tally.together)
    kinds = {line["fault"] for line in tally.table if " and " not in line["fault"]}
    curve = [
        {
            "times what is allowed": limit,
            "faults found, %": round(100 * sum(each > limit for each in tally.severities) / max(1, alone), 1),
            "sound layers blamed": sum(each > limit for each in tally.clean),
            "of sound layers": len(tally.clean),
            "sound forms of clean_chains blamed": sum(each > limit for each in clean_chains),
            "of forms": len(clean_chains),
        }
        for limit in THRESHOLDS
    ]
    return [
        record(
            f"{ROW}.one",
            area="parity",
            value=100 * sum(tally.alone) / max(1, alone),
            unit="% of faults with the right layer and link and nothing else blamed",
            n=alone,
            reach=Reach("≥", 95),
            table=tally.table,
        ),
        record(
            f"{ROW}.two",
            area="parity",
            value=100 * sum(tally.together) / max(1, together),
            unit="% of pairs with both faults named and nothing else blamed",
            n=together,
            reach=Reach("≥", 80),
            table=tally.table,
        ),
        record(f"{ROW}.kinds", area="parity", value=len(kinds), unit="kinds", n=alone, reach=Reach("≥", 15)),
        record(
            f"{ROW}.sound_networks",
            area="parity",
            value=len(tally.alarms),
            unit="layers blamed in sound networks",
            n=len(NETWORKS),
            reach=Reach("=", 0),
            table=[*curve, *({"alarm": each} for each in tally.alarms)],
        ),
    ]
