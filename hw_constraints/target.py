"""A target: everything Bitwright knows about one accelerator, read from one declarative file.

The quantization scheme, the linter, the lowering and the cost model all read the same frozen `Target`. Loading one
imports no tensor library.
"""

from __future__ import annotations

from pathlib import Path

from bitwright.hw_constraints import target_files
from bitwright.hw_constraints.target_builder import build
from bitwright.hw_constraints.target_checks import check_file, check_target
from bitwright.hw_constraints.target_schema import TargetFile
from bitwright.hw_constraints.target_types import Capability, Target
from bitwright.quant.errors import InputError
from bitwright.quant.yaml_lines import Locations, validate

__all__ = ["Capability", "Target", "list_targets", "load_target"]


def list_targets() -> tuple[str, ...]:
    """The names that `load_target` knows; imports nothing that they name."""
    return target_files.target_names()


def load_target(name_or_path: str | Path) -> Target:
    """Loads a target by its name, or from the user's own YAML file.

    Raises:
        InputError: unknown name (the choices are listed), or a mistake in the file with its line.
    """
    path = target_files.find(name_or_path)
    data, locations = target_files.read(path)
    checked = validate(TargetFile, data, locations)
    _check_id(checked.id, path, locations)
    check_file(checked, data, locations)
    target = build(checked, str(path))
    check_target(target, locations)
    return target


def _check_id(name: str, path: Path, locations: Locations) -> None:
    """A file among ours is called as its target; a file of the user's own does not take a name that is taken."""
    where = locations.where(("id",))
    if path.parent == target_files.FOLDER:
        if name != path.stem:
            raise InputError(f"{where}: id = {name!r}; the file is called {path.stem!r}")
    elif name in target_files.target_names() and target_files.find(name).resolve() != path.resolve():
        raise InputError(f"{where}: id = {name!r}; there is a target of that name already, choose another")
