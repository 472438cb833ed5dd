"""Sound networks in every form: no result may be called broken, by thresholds that follow from number formats alone.

Public architectures and driving-style networks, with seeded random weights, in float32 and in W8A8; those that are not
captured whole by their regions, each a network of its own. Each form's results
are judged against draws of its formats' errors (`quant.parity_measures`); nothing was adjusted on these networks. Some
files do compute something else in a runtime: an alarm is a false one unless single layers, each given the simulation's
own codes, give other codes than rounding ties explain (`quant.parity.compare_links`, which has thresholds of its own).
What was found of a network is kept until code that it hangs on changes, so that a run that was cut off goes on where it
was.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.utils._pytree as pytree

from bitwright.experiments.benchmarks import driving, places
from bitwright.experiments.benchmarks.architectures import ARCHITECTURES, build
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.console import Console
from bitwright.experiments.stage_store import replace_file
from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel, Keywords
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.parity.link import Link
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.torch_links import CapturedLink, EagerLink, SimulationLink
from bitwright.quant.parity_measures import (
    Draws,
    Verdict,
    judge_outputs,
    quantization_draws,
    rounding_draws,
)
from bitwright.quant.parity_measures.noise import DRAWS
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.regions import find_regions

ROW = "clean_chains"
TARGET = "x86-vnni"
DRIVING = "driving: "
CALIBRATION = 4
_CODE = ("bitwright.quant", "bitwright.hw_constraints.parity_links", f"bitwright.experiments.benchmarks.rows.{ROW}")
Results = Mapping[str, npt.NDArray[Any]]
Case = dict[str, Any]
Make = Callable[[], tuple[torch.nn.Module, tuple[Any, ...]]]
# Draws to begin with. What is seen and no more than their mean is allowed by `DRAWS` of them, too: the mean of all is
# at least a quarter of theirs, and more than seven times that is allowed (F at 1e-6, of 7 and 56 degrees of freedom or
# fewer).
FEW = 2


def run(bench: Bench) -> list[Record]:
    """Judges every form of every network."""
    torch.set_num_threads(1)
    install_library(bench.home)
    networks: dict[str, Make] = {each.name: partial(build, each, bench.home / LIBRARY) for each in ARCHITECTURES}
    networks |= {f"{DRIVING}{name}": partial(_driving, name) for name in driving.names()}
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
    file = bench.ours / ROW / f"{name.replace(': ', '-')}.json"
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if not kept or any(_hash(code) != known for code, known in kept["code"].items()):
        lines = list(look(name, *make()))
        kept = {"code": {code: _hash(code) for code in _code(name)}, "lines": lines}
        gc.collect()  # modules refer to themselves, and seventy networks' weights do not fit beside each other
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(kept, ensure_ascii=False, indent=1))
    found: list[Case] = kept["lines"]
    return found


def _code(name: str) -> Iterator[str]:
    """The files of what has been imported, as far as a result can hang on it."""
    for module in sorted(sys.modules):
        if module.startswith(_CODE) and (file := getattr(sys.modules[module], "__file__", None)):
            yield str(Path(file).relative_to(places.checkout()))
    yield f"hw_constraints/targets/{TARGET}.yaml"
    if name.startswith(DRIVING):
        yield str(driving.source_file(name.removeprefix(DRIVING)).relative_to(places.checkout()))


def _hash(code: str) -> str:
    file = places.checkout() / code
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""


def look(name: str, module: torch.nn.Module, args: tuple[Any, ...]) -> Iterator[Case]:
    """One line for each form; a form that there is none of has its `problem`.

    What cannot be captured whole is looked at in its regions, each as a network of its own.
    """
    try:
        captured = capture(module, args)
    except InputError as error:
        regions = find_regions(module, args).regions
        if not regions:
            yield {"network": name, "form": "captured", "problem": _short(error)}
        for region in regions:
            part = module.get_submodule(region.module_path)
            yield from _forms(
                f"{name}: {region.name}", part, region.captured, Inputs(args=region.args, kwargs=region.kwargs)
            )
        return
    yield from _forms(name, module, captured, Inputs(args=args))


def _forms(name: str, module: torch.nn.Module, captured: CapturedModel, inputs: Inputs) -> Iterator[Case]:
    """All forms of a captured network."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _float_forms(name, module, captured, inputs, Path(folder))
        try:
            quantized = quantize(captured, load_target(TARGET).scheme(), list(_calibration(inputs)))
        except (InputError, ValueError) as error:
            yield {"network": name, "form": "W8A8", "problem": _short(error)}
            return
        yield from _quantized_forms(name, captured, quantized, inputs, Path(folder))


class _Judge:
    """Judges results of one network by draws of its errors, by few where these say enough."""

    def __init__(self, draw: Callable[[int], Draws], begin: int = FEW) -> None:
        self._draw, self._begin = cache(draw), begin

    def worst(self, results: Results) -> Verdict:
        """The result that comes closest to what is allowed, or farthest beyond."""
        found = self._by(self._draw(self._begin), results)
        if self._begin < DRAWS and any(each.seen > each.expected for each in found):
            found = self._by(self._draw(DRAWS), results)
        return max(found, key=lambda each: each.severity)

    def _by(self, draws: Draws, results: Results) -> tuple[Verdict, ...]:
        return judge_outputs(draws.clean, dict(zip(draws.clean, results.values(), strict=True)), draws)


def _float_forms(
    name: str, module: torch.nn.Module, captured: CapturedModel, inputs: Inputs, folder: Path
) -> Iterator[Case]:
    judge = _Judge(lambda draws: rounding_draws(captured, inputs, draws=draws))
    folded = fold_batch_norm(captured)

    def file(level: str) -> Results:
        return OnnxRuntimeLink(export_float(folded.graph, folder / "float.onnx"), level).run(inputs).outputs

    yield _case(name, "float: eager", judge, lambda: EagerLink(module).run(inputs).outputs)
    yield _case(name, "float: batch norms folded", judge, lambda: CapturedLink(folded).run(inputs).outputs)
    for level in ("disabled", "all"):
        yield _case(name, f"float: file, optimisations {level}", judge, partial(file, level))


def _quantized_forms(
    name: str, captured: CapturedModel, quantized: QuantizedModel, inputs: Inputs, folder: Path
) -> Iterator[Case]:
    simulation = SimulationLink(quantized)
    noise = _Judge(lambda draws: quantization_draws(captured, quantized, inputs, draws=draws))
    yield _case(name, "W8A8: simulation against float", noise, lambda: simulation.run(inputs).outputs)
    ties = _Judge(
        lambda draws: rounding_draws(quantized, inputs, draws=draws), DRAWS
    )  # their size follows their number

    def link(level: str) -> OnnxRuntimeLink:
        return OnnxRuntimeLink(export_onnx_qdq(quantized, folder / "codes.onnx"), level)

    def results(level: str) -> Results:
        return link(level).run(inputs).outputs

    for level in ("disabled", "all"):
        case = _case(name, f"W8A8: file, optimisations {level}", ties, partial(results, level))
        if case.get("of what is allowed", 0.0) > 1:
            case["broken layers"] = _broken_layers(simulation, link(level), inputs)
        yield case


def _broken_layers(simulation: Link, file: Link, inputs: Inputs) -> str:
    from bitwright.quant.parity import compare_links  # most networks do not hang on it

    breaks = compare_links(simulation, file, [inputs]).breaks
    return "; ".join(f"{each.tensor.op} {each.tensor.name}: {each.own.error}" for each in breaks if each.own)[:300]


def _case(name: str, form: str, judge: _Judge, results: Callable[[], Results]) -> Case:
    """The worst result of one form."""
    try:
        worst = judge.worst(results())
    except InputError as error:
        return {"network": name, "form": form, "problem": _short(error)}
    return {
        "network": name,
        "form": form,
        "problem": "",
        "of what is allowed": float(np.nan_to_num(worst.severity, posinf=1e9)),
        "seen over expected": worst.seen / worst.expected if worst.expected else None,
        "reason": f"{worst.name}: {worst.reason}",
    }


def _calibration(inputs: Inputs) -> Iterator[tuple[Any, ...]]:
    """Inputs like the example: real values drawn anew around it, whole numbers as they are."""
    draw = torch.Generator().manual_seed(1)

    def anew(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.numel() < 2:
            return tensor
        return tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=draw).to(tensor.dtype)

    args = (*inputs.args, Keywords(inputs.kwargs)) if inputs.kwargs else inputs.args
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

    networks = {line["network"].removeprefix(DRIVING).split(": ")[0] for line in judged}
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
