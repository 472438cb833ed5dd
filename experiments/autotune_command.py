"""What `bitwright autotune` does: a network or an ONNX file, quantized, and its Q/DQ put where a runtime profits."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.experiments.autotune_subject import SAMPLES, Subject, apart, subject_of, tune
from bitwright.experiments.console import Console
from bitwright.experiments.datasets import Split
from bitwright.experiments.load_recipe import THIS_CPU, target_of_this_cpu
from bitwright.experiments.model_commands import check_runtime, recipe_of, usable_runtimes
from bitwright.experiments.recipe_data import DataSection
from bitwright.experiments.recipe_section import ENTRY
from bitwright.hw_constraints.autotune import Budget, Tuned
from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.backends.artifacts import readers
from bitwright.hw_constraints.target import load_target
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.quant.captured_model import CapturedModel

_TABLES = (".npy", ".npz")
_OTHER_FILES = (".tflite", ".pt2", ".pte", ".engine", ".plan", ".xml")  # built for one runtime: no Q/DQ to move


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user asked for; see the command's options."""

    model: str
    target: str | None = None
    runtime: str | None = None
    data: str | None = None
    budget: int = 40
    minutes: float = 10.0
    threads: int = 1
    table: Path | None = None
    against: tuple[Path, ...] = ()
    out: Path | None = None


def autotune_model(asked: Asked, *, console: Console) -> Tuned:
    """Quantizes and tunes.

    Raises:
        InputError: the network, the data, the runtime or a limit cannot be used; or the folder holds the record of
            something else.
    """
    if asked.budget < 1:
        raise InputError(f"--budget = {asked.budget}; at least 1 try is needed")
    if not 0 < asked.minutes < float("inf"):
        raise InputError(f"--minutes = {asked.minutes:g}; expected a number above 0")
    if asked.threads < 1:
        raise InputError(f"--threads = {asked.threads}; at least 1 is needed")
    if Path(asked.model).suffix.lower() in _OTHER_FILES:
        raise InputError(
            f"{asked.model}: is built for one runtime, which leaves no Q/DQ to move; autotune takes "
            "package.module:function, a recipe, or an ONNX file in its place"
        )
    if asked.out is not None and asked.out.exists() and not asked.out.is_dir():
        raise InputError(f"--out = {str(asked.out)!r}: is a file; expected a folder for the record and the artefact")
    others = {file.stem: file for file in asked.against}
    if len(others) < len(asked.against):
        raise InputError(f"--against: two files are called alike ({', '.join(map(str, asked.against))}); rename one")
    if absent := [file for file in asked.against if not file.is_file()]:
        raise InputError(f"--against = {str(absent[0])!r}: no such file")
    runtime = usable_runtimes([asked.runtime] if asked.runtime else None)[0]
    if "onnx" not in get_backend(runtime).reads:
        raise InputError(
            f"--runtime = {runtime!r}: reads no ONNX files, and autotune writes those; "
            f"there are: {', '.join(readers('onnx'))}"
        )
    subject = _of_file(asked, runtime) if asked.model.endswith(".onnx") else _of_network(asked, runtime, console)
    return tune(
        subject,
        asked.out or Path("runs") / f"autotune-{subject.name}-{runtime}",
        runtime=runtime,
        budget=Budget(tries=asked.budget, minutes=asked.minutes),
        threads=asked.threads,
        table=asked.table,
        others=others,
        console=console,
    )


def _of_network(asked: Asked, runtime: str, console: Console) -> Subject:
    """A network by its entry, or a recipe's; what a recipe trains is trained first."""
    from bitwright.experiments.quantized_network import quantized_network
    from bitwright.experiments.run import run_recipe
    from bitwright.experiments.scheme_settings import scheme_of
    from bitwright.experiments.workbench import Workbench, load_weights
    from bitwright.quant.capture import capture

    target = target_of_this_cpu("--target") if asked.target == THIS_CPU else asked.target
    recipe = recipe_of(asked.model, target, asked.data)
    bench = Workbench(recipe)
    check_runtime(bench.target, runtime, f"target = {bench.target.id!r}")
    model = bench.new_model()
    if recipe.train is not None:
        folder = Path("runs") / recipe.name
        run_recipe(recipe, folder, until="train", console=console)
        load_weights(model, folder / "stages" / "train" / "weights.safetensors")
    captured = capture(model, bench.example(model))
    quantized = quantized_network(
        recipe, captured, scheme_of(recipe, bench.target), bench.calibration(model), console=console
    )
    return subject_of(bench, model, captured, quantized)


def _of_file(asked: Asked, runtime: str) -> Subject:
    """An ONNX file: one in float is calibrated with the data, one with Q/DQ is taken as it is."""
    from bitwright.quant.calibrate import take
    from bitwright.quant.onnx_import import graph_from_onnx
    from bitwright.quant.onnx_import.to_captured import to_captured, to_quantized
    from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
    from bitwright.quant.ptq import quantize

    file = Path(asked.model)
    if asked.data is None:
        raise InputError("an ONNX file needs --data: a .npz (arrays by input name), a .npy, or package.module:function")
    imported = graph_from_onnx(file)
    if imported.plan is not None:
        quantized, reference = to_quantized(imported)
        samples = take(reference, _batches(reference, asked.data), 2 * SAMPLES)
    else:
        if asked.target is None:
            raise InputError("an ONNX file in float needs --target: it says how to quantize; see `bitwright targets`")
        target = load_target(target_of_this_cpu("--target") if asked.target == THIS_CPU else asked.target)
        check_runtime(target, runtime, f"--target = {target.id!r}")
        captured = to_captured(imported.graph, file.name)
        samples = take(captured, _batches(captured, asked.data), 2 * SAMPLES)
        quantized = quantize(captured, target.scheme(), samples[: max(1, len(samples) // 2)])
        reference = fold_batch_norm(captured)
    search, held_out = apart(samples, ())
    return Subject(name=file.stem, quantized=quantized, reference=reference, search=search, held_out=held_out)


def _batches(captured: CapturedModel, data: str) -> Iterator[tuple[Any, ...]]:
    """Arguments of an imported network from arrays on disk, or from the user's own loader."""
    if not data.endswith(_TABLES):
        from bitwright.experiments.inputs import arguments_of
        from bitwright.experiments.open_data import open_data
        from bitwright.quant.to_module import to_module

        if not re.match(ENTRY, data):
            raise InputError(f"--data = {data!r}; expected a .npz, a .npy, or package.module:function")
        read = arguments_of(to_module(captured), None)
        batches = open_data(DataSection.model_validate({"entry": data})).loader(Split.CALIBRATE, 1, None)
        yield from map(read, itertools.islice(batches, 2 * SAMPLES))
        return
    yield from _rows(captured, Path(data))


def _rows(captured: CapturedModel, file: Path) -> Iterator[tuple[Any, ...]]:
    import numpy as np
    import torch

    names = [ref.module_path.removeprefix("$") for ref in captured.graph.inputs]
    try:
        loaded = np.load(file, allow_pickle=False, mmap_mode="r" if file.suffix == ".npy" else None)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--data = {str(file)!r}: cannot be read as arrays ({reason})") from error
    arrays = {names[0]: loaded} if file.suffix == ".npy" else dict(loaded)
    if set(arrays) != set(names):
        raise InputError(f"--data = {str(file)!r}: holds {sorted(arrays)}; the network takes {sorted(names)}")
    for name, ref in zip(names, captured.graph.inputs, strict=True):
        want = captured.graph.tensors[ref].shape
        if arrays[name].shape[1:] != tuple(want[1:]) or not len(arrays[name]):
            raise InputError(
                f"--data = {str(file)!r}: {name} has the shape {arrays[name].shape}; expected (samples, "
                f"{', '.join(map(str, want[1:]))})"
            )
    for row in range(min(len(array) for array in arrays.values())):
        yield tuple(torch.from_numpy(np.array(arrays[name][row : row + 1])) for name in names)
