"""What holds a target file together, beyond the shape of its parts.

Names exist, memories are reached, capabilities have the figures that they need, constraints can be met.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

from bitwright.hw_constraints.predicate_bounds import contradictory
from bitwright.hw_constraints.target_needs import missing_figures, problems_of_cost_figures
from bitwright.hw_constraints.target_numerics import Constraint
from bitwright.hw_constraints.target_schema import TargetFile
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.errors import InputError, suggestion
from bitwright.quant.yaml_lines import KeyPath, Locations, dotted

_Reference = tuple[KeyPath, str]  # where a name is written, and the name


def check_file(checked: TargetFile, data: Any, locations: Locations) -> None:
    """Every name in a file stands for something in it.

    Raises:
        InputError: one does not, or says something twice over.
    """
    _check_sources(data, (), checked, locations)
    _check_names(_memories_named(checked), "memory", checked.memories, locations)
    _check_names(_layouts_named(checked), "layout", checked.layouts, locations)
    _check_names(_engines_named(checked), "engine", checked.engines, locations)
    _check_reach(checked, locations)
    defaults = [name for name, layout in checked.layouts.items() if layout.default]
    if len(defaults) > 1:
        where = locations.where(("layouts", defaults[1], "default"))
        raise InputError(f"{where}: layouts.{defaults[1]}.default = True; {defaults[0]} is the default already")
    for capability in checked.missing:
        if capability in checked.capabilities:
            where = locations.where(("missing", capability))
            raise InputError(f"{where}: missing.{capability}: capabilities has {capability}, too; drop one of them")


def check_target(target: Target, locations: Locations) -> None:
    """The figures suffice for the capabilities, and the constraints leave something to call.

    Raises:
        InputError: they do not.
    """
    _check_needs(target, locations)
    _check_constraints(target, locations)


def _memories_named(checked: TargetFile) -> Iterator[_Reference]:
    for name, engine in checked.engines.items():
        for key, memories in (("reads", engine.reads), ("writes", engine.writes)):
            yield from ((("engines", name, key, place), memory) for place, memory in enumerate(memories))
    for name, link in checked.links.items():
        yield from ((("links", name, "start"), link.start), (("links", name, "end"), link.end))


def _layouts_named(checked: TargetFile) -> Iterator[_Reference]:
    for name, reformat in checked.reformats.items():
        yield from ((("reformats", name, "start"), reformat.start), (("reformats", name, "end"), reformat.end))


def _engines_named(checked: TargetFile) -> Iterator[_Reference]:
    for name, reformat in checked.reformats.items():
        if reformat.engine is not None:
            yield ("reformats", name, "engine"), reformat.engine


def _check_names(named: Iterable[_Reference], what: str, known: Iterable[str], locations: Locations) -> None:
    names = list(known)
    for path, name in named:
        if name not in names:
            listed = ", ".join(names) or "none"
            raise InputError(
                f"{locations.where(path)}: {dotted(path)} = {name!r}; no such {what}, there are: {listed}"
                f"{suggestion(name, names)}"
            )


def _check_reach(checked: TargetFile, locations: Locations) -> None:
    reached = {name for engine in checked.engines.values() for name in (*engine.reads, *engine.writes)}
    grew = True
    while grew:
        ends = {link.start for link in checked.links.values() if link.end in reached}
        ends |= {link.end for link in checked.links.values() if link.start in reached}
        grew = not ends <= reached
        reached |= ends
    for name in checked.memories:
        if name not in reached:
            raise InputError(
                f"{locations.where(('memories', name))}: memories.{name}: no engine reaches it; name it in an engine's "
                "reads or writes, or in a link"
            )


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
