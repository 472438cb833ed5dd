"""What the commands for one step do: a network from an entry or a recipe, a step of the chain, its result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.experiments.console import Console
from bitwright.experiments.entry_network import entry_network
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.recipe import ENTRY, Recipe
from bitwright.experiments.record import Record
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.hw_constraints.finding import Finding
    from bitwright.hw_constraints.measure import Measurement


def lint_model(model: str, target_name: str | None, inputs: Sequence[str]) -> tuple[Finding, ...]:
    """Captures a network and lints it.

    Args:
        model: an entry, or a recipe.
        target_name: a target; a recipe's own when not given.
        inputs: example inputs of an entry, as `1x3x224x224` or `1x20:int64`.

    Raises:
        InputError: no such network, target or shape.
    """
    from bitwright.experiments.workbench import Workbench
    from bitwright.hw_constraints.lint import lint
    from bitwright.hw_constraints.target import load_target
    from bitwright.quant.capture import CaptureError, capture
    from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
    from bitwright.quant.plan import plan

    if re.match(ENTRY, model):
        network, example = entry_network(model, inputs)
        if target_name is None:
            raise InputError("--target is missing; see `bitwright targets`")
    else:
        bench = Workbench(load_recipe(model, [f"target={target_name}"] if target_name else ()))
        network, target_name = bench.new_model(), bench.recipe.target
        example = bench.example(network)
    target = load_target(target_name)
    try:
        graph = fold_batch_norm(capture(network, example)).graph
    except CaptureError as error:
        return lint(None, target, capture_failures=[error.failure])
    return lint(graph, target, plan=plan(graph, target.scheme()))


def quantize_model(
    model: str, target: str | None, data: str | None, out: Path | None, *, quiet: bool
) -> tuple[Record, Path]:
    """Runs the chain up to the artefact.

    Raises:
        InputError: an entry without target or data, or anything that `run_recipe` refuses.
    """
    from bitwright.experiments.run import run_recipe

    if re.match(ENTRY, model):
        if target is None or data is None:
            raise InputError("a network by its entry needs --target and --data (package.module:function)")
        name = re.sub(r"\W+", "-", model)
        recipe = Recipe.model_validate(
            {"name": name, "target": target, "model": {"entry": model}, "data": {"entry": data}}
        )
    else:
        overrides = [f"target={target}"] * (target is not None) + [f"data={{entry: {data}}}"] * (data is not None)
        recipe = load_recipe(model, overrides)
    folder = out or Path("runs") / recipe.name
    return run_recipe(recipe, folder, until="quantize", console=Console(quiet=quiet)), folder


def usable_runtimes(asked: Sequence[str] | None) -> tuple[str, ...]:
    """The runtimes asked for, else all installed ones that read ONNX files.

    Raises:
        InputError: one that was asked for is unknown or not here.
    """
    from bitwright.experiments.workbench import require_runtime
    from bitwright.hw_constraints.backends import get_backend

    for name in asked or ():
        require_runtime(name)
    return tuple(asked or (name for name in ("onnxruntime", "openvino") if get_backend(name).available() is None))


def measure_files(
    files: Sequence[Path], asked: Sequence[str] | None, *, threads: int, seconds: float
) -> dict[str, Measurement]:
    """Times files on each runtime; the first file is the reference.

    Raises:
        InputError: a file is not there, or a file or runtime cannot be used.
    """
    from bitwright.hw_constraints.measure import measure_in_subprocess

    names = [str(each) for each in files]
    for each in files:
        if not each.is_file():
            raise InputError(f"{each}: no such file")
    return {
        runtime: measure_in_subprocess(
            {name: (Path(name), runtime) for name in names}, threads=threads, max_seconds=seconds
        )
        for runtime in usable_runtimes(asked)
    }
