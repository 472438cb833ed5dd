"""Finds a recipe, applies `key=value` from the command line, and checks it all without importing torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bitwright.experiments.extensions import (
    BACKENDS,
    DATASETS,
    EXPORTERS,
    MODELS,
    OBSERVERS,
    PREPARATIONS,
    RECIPES,
    ROUNDINGS,
    SPACES,
    TARGETS,
    ExtensionPoint,
)
from bitwright.experiments.recipe import Recipe
from bitwright.experiments.recipe_checks import problems_of
from bitwright.experiments.recipe_section import Chosen, EntryArguments
from bitwright.experiments.scheme_settings import RefusedSettingError, scheme_of
from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.target import load_target
from bitwright.quant import yaml_lines
from bitwright.quant.errors import InputError, unknown
from bitwright.quant.formats import FORMATS
from bitwright.quant.yaml_lines import KeyPath, Locations

COMMAND_LINE = "command line"
THIS_CPU = "this-cpu"


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one.

    Raises:
        InputError: there is neither.
    """
    path = Path(name)
    if path.exists() or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path
    if name not in RECIPES.names():
        raise unknown("recipe", name, RECIPES.names())
    return Path(str(resources.files("bitwright.recipes") / f"{name}.yaml"))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads, overrides and checks a recipe.

    Args:
        name: a path, or the name of a shipped recipe.
        overrides: `train.epochs=3`, `quantize.overrides.0.module=head`, in YAML's spelling.

    Raises:
        InputError: each problem on its own line with its place, the key, its value, and what is allowed.
    """
    path = find_recipe(name)
    data, locations = yaml_lines.load(path)
    elsewhere: dict[KeyPath, str] = {}
    for text in overrides:
        elsewhere[_override(data, text)] = COMMAND_LINE
    locations = Locations(locations.file, locations.lines, elsewhere)
    if data.get("target") == THIS_CPU:
        data["target"] = target_of_this_cpu(locations.where(("target",)))
    recipe = yaml_lines.validate(Recipe, data, locations)
    names, device = _unknown_names(recipe, locations), _device_problems(recipe, locations)
    problems = [*names, *device, *_missing_tables(recipe, locations), *_section_problems(recipe, data, locations)]
    if not names:  # a target that is none says nothing about the rest
        problems += problems_of(recipe, load_target(recipe.target), locations)
    if problems:
        raise InputError("\n".join(problems))
    _check_formats(recipe, locations)
    return recipe


def target_of_this_cpu(where: str) -> str:
    """The target that describes the processor this runs on.

    Raises:
        InputError: there is none for its architecture.
    """
    machine = this_machine()
    if machine.architecture not in ("x86_64", "AMD64"):
        raise InputError(f"{where}: target = {THIS_CPU!r}; there is none for {machine.architecture} yet, name a target")
    return "x86-vnni" if machine.has_int8_dot_product else "x86-avx2"


def _check_formats(recipe: Recipe, locations: Locations) -> None:
    """Formats and symmetries against what the target runs."""
    target = load_target(recipe.target)
    for section in ("quantize", "qat"):
        if getattr(recipe, section) is None:
            continue
        try:
            scheme_of(recipe, target, section=section)
        except RefusedSettingError as error:
            raise InputError(f"{locations.where(error.path)}: {error}") from None


def _override(data: dict[str, Any], text: str) -> KeyPath:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"{COMMAND_LINE}: {text!r} is no key=value (such as train.epochs=3)")
    path: KeyPath = tuple(int(part) if part.isdigit() else part for part in key.split("."))
    holder: Any = data
    for depth, step in enumerate(path):
        inside = isinstance(holder, list) and isinstance(step, int) and step < len(holder)
        if not isinstance(holder, dict) and not inside:
            at = yaml_lines.dotted(path[:depth])
            raise InputError(f"{COMMAND_LINE}: {text!r}: {at} = {yaml_lines.shown(holder)} has no key {step!r}")
        if depth == len(path) - 1:
            holder[step] = yaml_lines.value_of(value)
        elif isinstance(holder, dict) and holder.get(step) is None:
            holder[step] = {}
            holder = holder[step]
        else:
            holder = holder[step]
    return path


def _unknown_names(recipe: Recipe, locations: Locations) -> list[str]:
    """Names that no extension carries; a target may also be a file of the user's own."""
    named: list[tuple[ExtensionPoint, str | None, KeyPath]] = [
        (OBSERVERS, recipe.calibrate.observer, ("calibrate", "observer")),
        (MODELS, recipe.model.kind, ("model", "kind")),
        (DATASETS, recipe.data.kind, ("data", "kind")),
        (EXPORTERS, recipe.export.format, ("export", "format")),
        (ROUNDINGS, recipe.quantize.rounding, ("quantize", "rounding")),
        *((PREPARATIONS, each, ("quantize", "prepare", i)) for i, each in enumerate(recipe.quantize.prepare)),
        *([(SPACES, recipe.search.space.kind, ("search", "space", "kind"))] if recipe.search else ()),
        *((BACKENDS, each, ("prove", "runtimes", i)) for i, each in enumerate(recipe.prove.runtimes or ())),
    ]
    if recipe.measure.on is None:
        named += [(BACKENDS, each, ("measure", "runtimes", i)) for i, each in enumerate(recipe.measure.runtimes or ())]
    if not recipe.target.endswith((".yaml", ".yml")):
        named.append((TARGETS, recipe.target, ("target",)))
    problems = [
        _problem(point.kind, name, point.names(), path, locations)
        for point, name, path in named
        if name is not None and name not in point.names()
    ]
    for path, spec in _specs(recipe.model_dump()):
        for key, kind, choices in (("format", "number format", tuple(FORMATS)), ("observer", "observer", None)):
            name = spec.get(key)
            choices = OBSERVERS.names() if choices is None else choices
            if name is not None and name not in choices:
                problems.append(_problem(kind, name, choices, (*path, key), locations))
    return problems


def _device_problems(recipe: Recipe, locations: Locations) -> list[str]:
    """The way to a device, and the runtimes there: what drives them is another set than the backends here."""
    from bitwright.hw_constraints.transport.address import parse_address
    from bitwright.hw_constraints.transport.base import list_transports
    from bitwright.hw_constraints.transport.runner.runtimes import NAMES

    asked = recipe.measure
    if asked.on is None:
        return []
    named: list[tuple[str, str, Sequence[str], KeyPath]] = [
        ("transport", parse_address(asked.on).scheme, list_transports(), ("measure", "on")),
        *(
            ("runtime of a device", name, NAMES, ("measure", "runtimes", i))
            for i, name in enumerate(asked.runtimes or ())
        ),
    ]
    return [_problem(*each, locations) for each in named if each[1] not in each[2]]


def _missing_tables(recipe: Recipe, locations: Locations) -> list[str]:
    """Latency tables that are no files; what is in them is read when they are needed."""
    named: list[tuple[KeyPath, str]] = [
        (("predict", "tables", i), each) for i, each in enumerate(recipe.predict.tables)
    ]
    if recipe.search is not None and recipe.search.table is not None:
        named.append((("search", "table"), recipe.search.table))
    return [
        f"{locations.where(path)}: {yaml_lines.dotted(path)} = {table!r}; there is no such file; "
        f"measure one first: bitwright measure kernels --out {table}"
        for path, table in named
        if not Path(table).is_file()
    ]


def _specs(value: Any, path: KeyPath = ()) -> list[tuple[KeyPath, dict[str, Any]]]:
    """Every `weights` and `activations` setting of a recipe, with its path."""
    if isinstance(value, dict):
        found = [((*path, key), value[key]) for key in ("weights", "activations") if isinstance(value.get(key), dict)]
        return found + [each for key, inner in value.items() for each in _specs(inner, (*path, key))]
    if isinstance(value, list | tuple):
        return [each for index, inner in enumerate(value) for each in _specs(inner, (*path, index))]
    return []


def _problem(kind: str, name: str, choices: Sequence[str], path: KeyPath, locations: Locations) -> str:
    return f"{locations.where(path)}: {yaml_lines.dotted(path)} = {name!r}; {unknown(kind, name, choices)}"


def _section_problems(recipe: Recipe, data: Mapping[str, Any], locations: Locations) -> list[str]:
    """The keys of `model`, `data` and `search.space` against their kind's own settings."""
    problems = []
    chosen: list[tuple[ExtensionPoint, Chosen, Mapping[str, Any], KeyPath]] = [
        (MODELS, recipe.model, data["model"], ("model",)),
        (DATASETS, recipe.data, data["data"], ("data",)),
    ]
    if recipe.search is not None:
        chosen.append((SPACES, recipe.search.space, data["search"]["space"], ("search", "space")))
    for point, section, given, path in chosen:
        own = set(type(section).model_fields)
        settings = {name: value for name, value in given.items() if name not in own}
        model = _settings_model(point, section)
        if model is not None:
            try:
                yaml_lines.validate(model, settings, locations, at=path)
            except InputError as error:
                problems.append(str(error))
    return problems


def _settings_model(point: ExtensionPoint, section: Chosen) -> type[BaseModel] | None:
    """The settings of a kind; None for a third party's, whose code is not run to check a recipe."""
    if section.kind is None:
        return EntryArguments
    if section.kind not in point.names() or not point.is_ours(section.kind):
        return None
    model: type[BaseModel] = point.load(section.kind).settings
    return model
