"""Sound networks in every form: no result may be called broken, by thresholds that follow from number formats alone.

Public architectures and driving-style networks, with seeded random weights, in float32 and in W8A8. Each form's results
are judged against draws of its formats' errors (`quant.parity_measures`); nothing was adjusted on these networks. Some
files do compute something else in a runtime: an alarm is a false one unless single layers, each given the simulation's
own codes, give other codes than rounding ties explain (`quant.parity.compare_links`, which has thresholds of its own).
What was found of a network is kept until the measures change, so that a run that was cut off goes on where it was.
"""

from __future__ import annotations

import gc
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.utils._pytree as pytree

from bitwright.experiments.benchmarks import driving
from bitwright.experiments.benchmarks.architectures import ARCHITECTURES, build
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.console import Console
from bitwright.experiments.stage_store import source_hash
from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.parity import Inputs, compare_links
from bitwright.quant.parity.torch_links import EagerLink, SimulationLink
from bitwright.quant.parity_measures import Draws, judge_outputs, quantization_draws, rounding_draws
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel

ROW = "clean_chains"
CALIBRATION = 4
Results = Mapping[str, npt.NDArray[Any]]
Case = dict[str, Any]
Make = Callable[[], tuple[torch.nn.Module, tuple[Any, ...]]]
_CODE = ("quant.parity_measures", f"experiments.benchmarks.rows.{ROW}")


def run(bench: Bench) -> list[Record]:
    """Judges every form of every network."""
    torch.set_num_threads(1)
    install_library(bench.home)
    networks: dict[str, Make] = {each.name: partial(build, each, bench.home / LIBRARY) for each in ARCHITECTURES}
    networks |= {f"driving: {name}": partial(_driving, name) for name in driving.names()}
    lines = []
    with Console().track("networks", len(networks)) as advance:
        for done, (name, make) in enumerate(networks.items(), 1):
            lines += _kept(name, make, bench)
            advance(done, name)
    return _records(lines)


def _driving(name: str) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    network = driving.load(name)
    return network.model, network.args


def _kept(name: str, make: Make, bench: Bench) -> list[Case]:
    parts = [name, *(source_hash(f"bitwright.{module}") for module in _CODE)]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    file = bench.ours / ROW / f"{name.replace(': ', '-')}-{digest}.json"
    if not file.exists():
        found = list(look(name, *make()))
        gc.collect()  # modules refer to themselves, and seventy networks' weights do not fit beside each other
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(found, ensure_ascii=False))
        partial.rename(file)
    kept: list[Case] = json.loads(file.read_text())
    return kept


def look(name: str, module: torch.nn.Module, args: tuple[Any, ...]) -> Iterator[Case]:
    """One line for each form; a form that there is none of has its `problem`."""
    try:
        captured = capture(module, args)
    except InputError as error:
        yield {"network": name, "form": "captured", "problem": _short(error)}
        return
    inputs = Inputs(args=args)
    with tempfile.TemporaryDirectory() as folder:
        yield from _float_forms(name, module, captured, inputs, Path(folder))
        try:
            quantized = quantize(captured, load_target("x86-vnni").scheme(), list(_calibration(args)))
        except (InputError, ValueError) as error:
            yield {"network": name, "form": "W8A8", "problem": _short(error)}
            return
        yield from _quantized_forms(name, captured, quantized, inputs, Path(folder))


def _float_forms(
    name: str, module: torch.nn.Module, captured: CapturedModel, inputs: Inputs, folder: Path
) -> Iterator[Case]:
    draws = rounding_draws(captured, inputs)
    folded = fold_batch_norm(captured)

    def file(level: str) -> Results:
        return OnnxRuntimeLink(export_float(folded.graph, folder / "float.onnx"), level).run(inputs).outputs

    yield _case(name, "float: eager", draws, lambda: EagerLink(module).run(inputs).outputs)
    yield _case(name, "float: batch norms folded", draws, lambda: rounding_draws(folded, inputs, draws=1).clean)
    for level in ("disabled", "all"):
        yield _case(name, f"float: file, optimisations {level}", draws, partial(file, level))


def _quantized_forms(
    name: str, captured: CapturedModel, quantized: QuantizedModel, inputs: Inputs, folder: Path
) -> Iterator[Case]:
    noise = quantization_draws(captured, quantized, inputs)
    yield _case(name, "W8A8: simulation against float", noise, lambda: rounding_draws(quantized, inputs, draws=1).clean)
    ties = rounding_draws(quantized, inputs)

    def link(level: str) -> OnnxRuntimeLink:
        return OnnxRuntimeLink(export_onnx_qdq(quantized, folder / "codes.onnx"), level)

    def results(level: str) -> Results:
        return link(level).run(inputs).outputs

    def broken(level: str) -> str:
        breaks = compare_links(SimulationLink(quantized), link(level), [inputs]).breaks
        return "; ".join(f"{each.tensor.op} {each.tensor.name}: {each.own.error}" for each in breaks if each.own)[:300]

    for level in ("disabled", "all"):
        case = _case(name, f"W8A8: file, optimisations {level}", ties, partial(results, level))
        if case.get("of what is allowed", 0.0) > 1:
            case["broken layers"] = broken(level)
        yield case


def _case(name: str, form: str, draws: Draws, results: Callable[[], Results]) -> Case:
    """The worst result of one form."""
    try:
        found = results()
    except InputError as error:
        return {"network": name, "form": form, "problem": _short(error)}
    joined = dict(zip(draws.clean, found.values(), strict=True))
    worst = max(judge_outputs(draws.clean, joined, draws), key=lambda each: each.severity)
    return {
        "network": name,
        "form": form,
        "problem": "",
        "of what is allowed": float(np.nan_to_num(worst.severity, posinf=1e9)),
        "seen over expected": worst.seen / worst.expected if worst.expected else None,
        "reason": f"{worst.name}: {worst.reason}",
    }


def _calibration(args: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Inputs like the example: real values drawn anew around it, whole numbers as they are."""
    draw = torch.Generator().manual_seed(1)

    def anew(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.numel() < 2:
            return tensor
        return tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=draw).to(tensor.dtype)

    yield args
    for _ in range(CALIBRATION - 1):
        yield pytree.tree_map_only(torch.Tensor, anew, args)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _records(lines: list[Case]) -> list[Record]:
    judged = [line for line in lines if not line["problem"]]

    def false_alarms(form: str, figure: str) -> Record:
        mine = [line for line in judged if line["form"].startswith(form)]
        largest = sorted(mine, key=lambda line: -line["of what is allowed"])[:12]
        unable = [line for line in lines if line["problem"] and line["form"].startswith(form)]
        return record(
            f"{ROW}.{figure}",
            area="parity",
            value=len([line for line in mine if line["of what is allowed"] > 1 and not line.get("broken layers")]),
            unit="results called broken in which no layer is",
            n=len(mine),
            reach=Reach("=", 0),
            table=[*largest, *unable],
        )

    networks = {line["network"] for line in judged}
    broken = [line for line in judged if line.get("broken layers")]
    return [
        record(f"{ROW}.networks", area="parity", value=len(networks), unit="networks", n=len(networks)),
        false_alarms("float", "float32"),
        false_alarms("W8A8: simulation", "w8a8_simulation"),
        false_alarms("W8A8: file", "w8a8_files"),
        record(
            f"{ROW}.found",
            area="parity",
            value=len(broken),
            unit="files with broken layers",
            n=len(judged),
            table=broken,
        ),
    ]
