"""What `bitwright parity` was given, as links: a network by its entry or recipe, a file, a run's folder, a dump."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bitwright.experiments.parity_runtimes import Runtimes
from bitwright.experiments.recipe_section import ENTRY
from bitwright.experiments.run_folder import RESOLVED
from bitwright.experiments.workbench import Workbench, load_weights
from bitwright.hw_constraints.parity_executorch import ExecuTorchLink
from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.hw_constraints.parity_litert import LiteRTLink
from bitwright.hw_constraints.parity_openvino import OpenVINOLink
from bitwright.hw_constraints.parity_tensorrt import EngineLink, TensorRTLink
from bitwright.hw_constraints.parity_versions import OtherVersionLink
from bitwright.quant.errors import InputError
from bitwright.quant.parity.dump import SUFFIXES
from bitwright.quant.parity.isolated import IsolatedLink
from bitwright.quant.parity.link import Link
from bitwright.quant.parity.onnx_link import ReferenceLink
from bitwright.quant.parity.onnx_network import OnnxNetwork

_CAPTURE = "capture sees another network than Python runs: look for data-dependent control flow and training mode"
_REWRITE = "a rewrite of Bitwright's changed the network: report it with the reproducer"
_FILE = "the file computes something else than what it was made from: export it again, compare that layer's values"
_LEVEL = "an optimisation of the runtime changes this layer: --bisect passes says which; report it with the reproducer"
_RUNTIME = "the runtime computes this layer otherwise: take another one, or report it with the reproducer"
_ELSEWHERE = "what ran elsewhere computes something else there: compare that layer's weights, scales and rounding"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A link, and what to do when it is the first that breaks.

    Attributes:
        link: the link.
        advice: in words.
        file: the ONNX file that it runs, for reproducers.
        made_from: the name of the link that it was made from; empty for the one before it.
        passes: makes the links between what it was made from and itself, where Bitwright's own passes lie there.
        version: of ONNX Runtime that runs it at the level that versions are compared at; empty for others.
    """

    link: Link
    advice: str
    file: Path | None = None
    made_from: str = ""
    passes: Callable[[], Sequence[Link]] | None = None
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two things that are compared.

    Attributes:
        steps: its links, from the user's network towards the device.
        bench: the recipe behind it, which brings data; None without one.
        example: arguments of one run; None where nothing says so.
    """

    steps: tuple[Step, ...]
    bench: Workbench | None = None
    example: tuple[Any, ...] | None = None


def open_side(what: str, shapes: Sequence[str], runtimes: Runtimes) -> Side:
    """Opens one side; a dump is opened by `dump_step`, since it is read with the other side's names.

    Args:
        what: as the user wrote it.
        shapes: of example inputs, for an entry.
        runtimes: to run files in.

    Raises:
        InputError: it is none of the things that can be compared.
    """
    path = Path(what)
    if what.endswith(".onnx"):
        return Side(steps=tuple(file_steps(path, runtimes)))
    if what.endswith(".tflite"):
        return Side(steps=tuple(_tflite_steps(path)))
    if what.endswith(".pte"):
        return Side(steps=tuple(_pte_steps(path, runtimes)))
    if what.endswith((".plan", ".engine")):
        return Side(steps=(_engine_step(path),))
    if what.endswith(".pt2"):
        return Side(steps=(_program_step(path),))
    if (path / RESOLVED).is_file():
        return _run_side(path, runtimes)
    if path.is_dir():
        raise InputError(f"{what}: is a folder without a run in it; give a run's folder, a file, a recipe or an entry")
    return _network_side(what, shapes)


def is_dump(what: str) -> bool:
    """Whether tensors were saved there."""
    return what.endswith(SUFFIXES)


def dump_step(what: str, beside: Side) -> Step:
    """A dump, read with the names of the other side's last link."""
    from bitwright.quant.parity.dump import DumpLink

    last = beside.steps[-1]
    outputs: tuple[str, ...] = ()
    if last.file is not None:
        outputs = tuple(each.name for each in OnnxNetwork(last.file).model.graph.output)
    paths = sorted(Path(what).parent.glob(Path(what).name)) if "*" in what else [Path(what)]
    if not paths:
        raise InputError(f"{what}: no such file")
    return Step(link=DumpLink(paths, last.link.tensors, outputs), advice=_ELSEWHERE)


def file_steps(path: Path, runtimes: Runtimes) -> list[Step]:
    """An ONNX file in ONNX Runtime, at each level, and in what else is asked for; runtimes in processes of their own.

    Raises:
        InputError: there is no such file, or no ONNX model in it.
    """
    OnnxNetwork(path)  # what is wrong with the file is said before a process is started
    steps = []
    if runtimes.reference:
        steps.append(Step(link=ReferenceLink(path, f"{path.name} in onnx.reference"), advice=_FILE, file=path))
    for level in runtimes.levels:
        name = f"{path.name} in ONNX Runtime, optimisations: {level}"
        link = IsolatedLink(name, partial(OnnxRuntimeLink, path, level))
        version = importlib.metadata.version("onnxruntime") if level == runtimes.levels[-1] else ""
        steps.append(Step(link=link, advice=_LEVEL if steps else _FILE, file=path, version=version))
    for other in runtimes.others:
        name = f"{path.name} in ONNX Runtime {other.version} of {other.place}"
        there = OtherVersionLink(path, other, runtimes.levels[-1], name)
        origin = steps[0].link.name if steps else ""
        steps.append(Step(link=there, advice=_RUNTIME, file=path, made_from=origin, version=other.version))
    wanted = [(runtimes.openvino, "OpenVINO", OpenVINOLink), (runtimes.tensorrt, "TensorRT", TensorRTLink)]
    for title, link_of in [each[1:] for each in wanted if each[0]]:
        inside = IsolatedLink(f"{path.name} in {title}", partial(link_of, path))
        steps.append(Step(link=inside, advice=_RUNTIME, file=path, made_from=steps[0].link.name if steps else ""))
    return steps


def _pte_steps(path: Path, runtimes: Runtimes) -> list[Step]:
    """A program in each Python's ExecuTorch; the first is what the others are compared with."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    steps = list[Step]()
    for each in runtimes.executorch:
        here = "" if each.place == sys.executable else f" of {each.place}"
        link = ExecuTorchLink(path, each, f"{path.name} in ExecuTorch {each.version}{here}")
        origin = steps[0].link.name if steps else ""
        steps.append(Step(link=link, advice=_RUNTIME if steps else _FILE, made_from=origin))
    return steps


def _engine_step(path: Path) -> Step:
    """An engine in TensorRT, which gives its results alone."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    check_tensorrt(str(path))
    link = IsolatedLink(f"{path.name} in TensorRT", partial(EngineLink, path), takes_tensors=False)
    return Step(link=link, advice=_FILE)


def check_tensorrt(asked: str) -> None:
    """Refuses what needs TensorRT where it cannot be used, before anything runs.

    Raises:
        InputError: why not, and the command that installs it.
    """
    from bitwright.hw_constraints.backends import get_backend

    if reason := get_backend("tensorrt").available():
        raise InputError(
            f"{asked}: needs TensorRT, and {reason}: pip install 'bitwright[tensorrt]' on a machine with a CUDA device"
        )


def _tflite_steps(path: Path) -> list[Step]:
    """A `.tflite` file in LiteRT's built-in kernels, which show every tensor, and with XNNPACK, which is deployed."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    names = {kernels: f"{path.name} in LiteRT, kernels: {kernels}" for kernels in ("builtin", "xnnpack")}
    return [
        Step(link=IsolatedLink(name, partial(LiteRTLink, path, kernels), takes_tensors=False), advice=advice)
        for (kernels, name), advice in zip(names.items(), (_FILE, _RUNTIME), strict=True)
    ]


def network_steps(network: Any, example: tuple[Any, ...]) -> list[Step]:
    """A network as it is, captured, and with its batch norms folded; only as it is where it does not capture whole."""
    from bitwright.quant.capture import CaptureError, capture
    from bitwright.quant.parity.own_passes import capture_links
    from bitwright.quant.parity.torch_links import CapturedLink, EagerLink
    from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

    try:
        captured = capture(network, example)
    except CaptureError:
        return [Step(link=EagerLink(network), advice="")]
    return [
        Step(link=EagerLink(network, captured.graph), advice=""),
        Step(link=CapturedLink(captured), advice=_CAPTURE, passes=partial(capture_links, network, example)),
        Step(link=CapturedLink(fold_batch_norm(captured), "batch norms folded"), advice=_REWRITE),
    ]


def _network_side(what: str, shapes: Sequence[str]) -> Side:
    from bitwright.experiments.entry_network import entry_network
    from bitwright.experiments.load_recipe import load_recipe

    if re.match(ENTRY, what):
        network, example = entry_network(what, shapes)
        return Side(steps=tuple(network_steps(network.eval(), example)), example=example)
    bench = Workbench(load_recipe(what, ()))
    network = bench.new_model()
    example = bench.example(network)
    return Side(steps=tuple(network_steps(network, example)), bench=bench, example=example)


def _run_side(folder: Path, runtimes: Runtimes) -> Side:
    """The whole chain of a run: its network with the weights that it trained, and both of its files.

    Raises:
        InputError: another version wrote the run's recipe, or the run has no quantized network.
    """
    from bitwright.experiments.load_recipe import load_recipe

    recipe = load_recipe(str(folder / RESOLVED))
    bench = Workbench(recipe)
    network = bench.new_model()
    weights = folder / "stages" / "train" / "weights.safetensors"
    if weights.is_file():
        load_weights(network, weights)
    example = bench.example(network)
    files = folder / "stages" / "quantize"
    if not (files / "quantized.onnx").is_file():
        raise InputError(f"{folder}: the run has no quantized.onnx; run the recipe again up to its stage quantize")
    steps = chain_of_run(network, example, files, runtimes, rewrites=rewrites_of(bench, network))
    return Side(steps=tuple(steps), bench=bench, example=example)


def rewrites_of(bench: Workbench, network: Any) -> Callable[[], Sequence[Link]] | None:
    """Makes the links of what the recipe rewrites before it quantizes; None where that is nothing."""
    asked = bench.recipe.quantize
    if not (asked.equalization or asked.prepare):
        return None

    def links() -> Sequence[Link]:
        from bitwright.experiments.scheme_settings import scheme_of
        from bitwright.quant.capture import capture
        from bitwright.quant.parity.own_passes import preparation_links

        return preparation_links(
            capture(network, bench.example(network)),
            scheme_of(bench.recipe, bench.target),
            bench.calibration(network),
            equalization=asked.equalization,
            preparations=asked.prepare,
        )

    return links


def chain_of_run(
    network: Any,
    example: tuple[Any, ...],
    files: Path,
    runtimes: Runtimes,
    *,
    rewrites: Callable[[], Sequence[Link]] | None,
) -> list[Step]:
    """Everything that a run makes of a network.

    Both files are made from the network with its batch norms folded. Where it was rewritten to be easier to quantize,
    the layers of the quantized file are not those of the network: its chain begins with the simulation of what the
    file says, and `--bisect passes` compares the rewrites.

    Args:
        network: in float, trained.
        example: arguments of one run.
        files: the folder with `float.onnx` and `quantized.onnx`.
        runtimes: to run files in.
        rewrites: see `rewrites_of`.
    """
    steps = network_steps(network, example)
    origin = steps[-1].link.name
    for name in ("float.onnx", "quantized.onnx"):
        if rewrites is not None and name == "quantized.onnx":
            simulation = replace(_simulation(files / name), passes=rewrites)
            steps.append(simulation)
            origin = simulation.link.name
        head, *rest = file_steps(files / name, runtimes)
        steps += [replace(head, made_from=origin), *rest]
    return steps


def _simulation(file: Path) -> Step:
    """A quantized file as its own beginning."""
    from bitwright.quant.onnx_import.import_graph import graph_from_onnx
    from bitwright.quant.onnx_import.to_captured import to_quantized
    from bitwright.quant.parity.torch_links import SimulationLink

    quantized, _ = to_quantized(graph_from_onnx(file))
    name = f"simulation of {file.name}"
    return Step(link=SimulationLink(quantized, name), advice="", made_from=name)


def _program_step(path: Path) -> Step:
    import torch
    import torch.utils._pytree as pytree

    from bitwright.hw_constraints.backends.pt2 import read_pt2
    from bitwright.quant.parity.torch_links import EagerLink

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    program, specs = read_pt2(path)

    def call(*args: Any, **kwargs: Any) -> Any:
        leaves = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        return program(**dict(zip((spec.name for spec in specs), leaves, strict=True)))

    return Step(link=EagerLink(call, name=path.name), advice=_FILE)
