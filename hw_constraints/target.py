"""A target: everything Bitwright knows about one accelerator, read from one declarative file.

The quantization scheme, the linter, the lowering and the cost model all read the same frozen `Target`. Loading one
imports no tensor library.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from bitwright.hw_constraints import target_files
from bitwright.hw_constraints.predicate_bounds import contradictory
from bitwright.hw_constraints.target_builder import build
from bitwright.hw_constraints.target_needs import missing_figures, problems_of_cost_figures
from bitwright.hw_constraints.target_numerics import Constraint
from bitwright.hw_constraints.target_schema import TargetFile
from bitwright.hw_constraints.target_types import Capability, Target
from bitwright.quant.errors import InputError
from bitwright.quant.yaml_lines import Locations, dotted, validate

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
    _check_sources(data, (), checked, locations)
    target = build(checked, str(path))
    _check_needs(target, locations)
    _check_constraints(target, locations)
    return target


def _check_id(name: str, path: Path, locations: Locations) -> None:
    """A file among ours is called as its target; a file of the user's own does not take a name that is taken."""
    where = locations.where(("id",))
    if path.parent == target_files.FOLDER:
        if name != path.stem:
            raise InputError(f"{where}: id = {name!r}; the file is called {path.stem!r}")
    elif name in target_files.target_names() and target_files.find(name).resolve() != path.resolve():
        raise InputError(f"{where}: id = {name!r}; there is a target of that name already, choose another")


def _check_sources(value: Any, path: tuple[str | int, ...], checked: TargetFile, locations: Locations) -> None:
    """Every `source` names an entry of `sources`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key == "observer_arguments":  # the observer's own names
            continue
        if key == "source" and item not in checked.sources:
            known = ", ".join(checked.sources)
            where = locations.where((*path, key))
            raise InputError(f"{where}: {dotted((*path, key))} = {item!r}; sources has {known}")
        _check_sources(item, (*path, key), checked, locations)


def _check_needs(target: Target, locations: Locations) -> None:
    """What the file claims to serve it says enough for."""
    for name, complaint in problems_of_cost_figures(target):
        raise InputError(f"{locations.where(('cost', 'figures', name))}: cost.figures.{name}{complaint}")
    for capability in target.capabilities:
        missing = missing_figures(target, capability)
        if missing:
            raise InputError(
                f"{locations.where(('capabilities',))}: capabilities has {capability}, but {', '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing; give the figure, or drop {capability} and say under "
                f"missing.{capability} what is not public"
            )


def _check_constraints(target: Target, locations: Locations) -> None:
    """Some call meets each constraint, and some call of each operator all of its constraints."""
    for constraint in target.constraints:
        if contradictory([constraint.require]):
            raise InputError(
                f"{_at(constraint, locations)} = {constraint.require.text!r}; no call of any operator meets it"
            )
    possible: set[frozenset[str]] = set()
    for op in sorted({op for constraint in target.constraints for op in constraint.operators}):
        together = target.constraints_on(op)
        names = frozenset(each.name for each in together)
        if names not in possible and contradictory([each.require for each in together]):
            raise InputError(_conflict(op, together, locations))
        possible.add(names)


def _conflict(op: str, together: Sequence[Constraint], locations: Locations) -> str:
    """Names two constraints that exclude each other, or all where no two do."""
    for first, second in combinations(together, 2):
        if contradictory([first.require, second.require]):
            return (
                f"{_at(second, locations)} = {second.require.text!r}; no {op} meets it and "
                f"constraints.{first.name}.require = {first.require.text!r}"
            )
    names = ", ".join(each.name for each in together)
    return f"{_at(together[-1], locations)} = {together[-1].require.text!r}; no {op} meets all of {names}"


def _at(constraint: Constraint, locations: Locations) -> str:
    path = ("constraints", constraint.name, "require")
    return f"{locations.where(path)}: {dotted(path)}"
