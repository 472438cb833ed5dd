"""What the commands for one step do: a step of the chain, and its result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.recipe import Recipe
from bitwright.experiments.recipe_section import ENTRY
from bitwright.experiments.record import Record
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.hw_constraints.measure import Measurement
    from bitwright.hw_constraints.proof import ProofReport
    from bitwright.hw_constraints.target import Target


def quantize_model(
    model: str, target: str | None, data: str | None, out: Path | None, *, export: str | None = None, quiet: bool
) -> tuple[Record, Path]:
    """Runs the chain up to the artefact: what runtimes here read, and what the target's toolchain does.

    Raises:
        InputError: an entry without target or data, an unknown exporter, or anything that `run_recipe` refuses.
    """
    from bitwright.experiments.run import run_recipe

    recipe = with_export(recipe_of(model, target, data), export)
    folder = out or Path("runs") / recipe.name
    return run_recipe(recipe, folder, until="export", console=Console(quiet=quiet)), folder


def with_export(recipe: Recipe, name: str | None) -> Recipe:
    """The recipe with another exporter, where one is named.

    Raises:
        InputError: it is unknown.
    """
    from bitwright.experiments.extensions import EXPORTERS

    if name is None:
        return recipe
    EXPORTERS.check(name)
    return recipe.model_copy(update={"export": recipe.export.model_copy(update={"format": name})})


def recipe_of(model: str, target: str | None, data: str | None) -> Recipe:
    """The recipe that a network by its entry stands for, or a recipe with another target or data.

    Raises:
        InputError: an entry without target or data, data that are no entry, or anything that `load_recipe` refuses.
    """
    if data is not None and not re.match(ENTRY, data):
        raise InputError(f"--data = {data!r}; a network or a recipe takes its data from package.module:function")
    if re.match(ENTRY, model):
        if target is None or data is None:
            raise InputError("a network by its entry needs --target and --data (package.module:function)")
        name = re.sub(r"\W+", "-", model)
        sections = {"model": {"entry": model}, "data": {"entry": data}}
        return Recipe.model_validate({"name": name, "target": target, **sections})
    overrides = [f"target={target}"] * (target is not None) + [f"data={{entry: {data}}}"] * (data is not None)
    return load_recipe(model, overrides)


def usable_runtimes(asked: Sequence[str] | None, files: Sequence[Path] = ()) -> tuple[str, ...]:
    """The runtimes asked for, else all that are here and read these files; ONNX files where none are given.

    Raises:
        InputError: one that was asked for is unknown or not here, or none that is here reads the files.
    """
    from bitwright.experiments.workbench import require_runtime
    from bitwright.hw_constraints.backends import get_backend
    from bitwright.hw_constraints.backends.artifacts import artifact_kind, readers

    for name in asked or ():
        require_runtime(name)
    if asked:
        return tuple(asked)
    found = [artifact_kind(file) for file in files]
    kinds = sorted({kind.name for kind in found if kind is not None}) or ["onnx"]
    able = [name for name in readers(kinds[0]) if all(kind in get_backend(name).reads for kind in kinds)]
    here = tuple(name for name in able if get_backend(name).available() is None)
    if not here and len(able) == 1:
        require_runtime(able[0])  # says what to install
    if not here:
        advice = f"{', '.join(able)} would" if able else "measure them one kind at a time"
        raise InputError(f"no runtime here reads {' and '.join(kinds)} files; {advice}")
    return here


def check_runtime(target: Target, runtime: str, said: str) -> None:
    """That a target's artefacts run in a runtime.

    Raises:
        InputError: they do not; begins with what the user `said`.
    """
    known = target.artifact.runtimes
    if runtime not in known:
        raise InputError(f"{said}; {target.id!r} runs in {', '.join(known) or 'no public runtime'}, not in {runtime!r}")


def prove_file(
    file: Path, asked: Sequence[str] | None, *, threads: int, elsewhere: Sequence[Path]
) -> list[ProofReport]:
    """Proves a file on each runtime here, or by what another tool wrote of it elsewhere.

    Raises:
        InputError: a file or runtime cannot be used, or both ways are asked for.
    """
    from bitwright.experiments.export_file import with_codes
    from bitwright.hw_constraints.proof import prove, prove_from

    if elsewhere:
        if asked:
            raise InputError(f"--runtime = {asked[0]!r} runs the file here, --from reads what ran elsewhere: give one")
        return [prove_from(file, elsewhere)]
    with with_codes(file) as readable:
        return [prove(readable, name, threads=threads) for name in usable_runtimes(asked)]


def print_how(file: Path, tool: str, *, json: bool) -> int:
    """Prints the command lines that make a tool's report of a file, which need not be there yet.

    Raises:
        InputError: there is no such tool.
    """
    from bitwright.experiments.tables import print_json
    from bitwright.hw_constraints.proof.tools.base import get_tool

    lines = get_tool(tool).how(file)
    if json:
        print_json({"file": str(file), "tool": tool, "lines": lines.splitlines()})
    else:
        print(lines)
    return 0


def measure_files(
    files: Sequence[Path], asked: Sequence[str] | None, *, threads: int, seconds: float
) -> dict[str, Measurement]:
    """Times files on each runtime; the first file is the reference.

    Raises:
        InputError: a file is not there, or a file or runtime cannot be used.
    """
    from bitwright.hw_constraints.measure import measure_in_subprocess

    names = checked_names(files, threads=threads, seconds=seconds)
    return {
        runtime: measure_in_subprocess(
            {name: (Path(name), runtime) for name in names}, threads=threads, max_seconds=seconds
        )
        for runtime in usable_runtimes(asked, files)
    }


def checked_names(files: Sequence[Path], *, threads: int, seconds: float) -> list[str]:
    """What files that are measured are called: as they were given.

    Raises:
        InputError: one is not there or named twice, or an option is out of range.
    """
    names = [str(each) for each in files]
    if threads < 1:
        raise InputError(f"--threads = {threads}; at least 1 is needed")
    if not 0 < seconds < float("inf"):
        raise InputError(f"--seconds = {seconds:g}; expected a number above 0")
    for place, each in enumerate(files):
        if names[place] in names[:place]:
            raise InputError(f"{each}: is named twice; copy it to measure it against itself")
        if not each.is_file():
            raise InputError(f"{each}: {'is a folder; name a file' if each.is_dir() else 'no such file'}")
    return names
