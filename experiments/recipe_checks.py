"""What the parts of a recipe say against each other or against the target, found before anything has run."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence

from bitwright.experiments.mixed_amount import FIRST_TO_LEAST, FLOAT_TO_OWN, amount
from bitwright.experiments.recipe import METRICS, QuantizeOverride, Recipe
from bitwright.hw_constraints.target import Target
from bitwright.quant.errors import InputError, suggestion, unknown
from bitwright.quant.yaml_lines import KeyPath, Locations, dotted


def problems_of(recipe: Recipe, target: Target, locations: Locations) -> Iterator[str]:
    """Each problem with its place, the key, its value, and what is allowed."""
    yield from _overrides(recipe.quantize.overrides, target, locations)
    yield from _metric(recipe, locations)
    yield from _mixed(recipe, locations)
    yield from _learned(recipe, target, locations)
    yield from _prune(recipe, target, locations)


def _overrides(overrides: tuple[QuantizeOverride, ...], target: Target, locations: Locations) -> Iterator[str]:
    known = target.scheme()
    # Products are written out where the scheme has them; activations are overridden at whatever reads or makes them.
    operators = sorted({*known.quantized_operators, *known.shared_qparams_operators, *known.codes_only_operators})
    for index, override in enumerate(overrides):
        path: KeyPath = ("quantize", "overrides", index)
        where, key = locations.where(path), dotted(path)
        if override.keep_float and (override.weights or override.activations):
            given = "weights" if override.weights else "activations"
            yield f"{where}: {key}: keep_float leaves these in float, where {given} say nothing; remove one of them"
        if override.operator and override.operator not in operators:
            close = suggestion(override.operator, operators)
            yield (
                f"{where}: {key}.operator = {override.operator!r}; target {target.id!r} quantizes no such operator, so "
                f"there is nothing to override; it quantizes {', '.join(operators)}{close}"
            )
        for later, other in enumerate(overrides[index + 1 :], start=index + 1):
            if _hides(other, override):
                second: KeyPath = ("quantize", "overrides", later)
                yield (
                    f"{where}: {key} ({_said(override)}) never holds: {dotted(second)} ({_said(other)}) in "
                    f"{locations.where(second)} selects all of it, and the later one wins; remove one, or put the "
                    "narrower one behind the wider one"
                )
                break


def _hides(later: QuantizeOverride, earlier: QuantizeOverride) -> bool:
    """Whether everything that the earlier one selects is selected by the later one, too."""
    if later.operator or earlier.operator:
        return bool(later.operator) and later.operator == earlier.operator
    return later.module == earlier.module or fnmatch.fnmatchcase(earlier.module, later.module)


def _said(override: QuantizeOverride) -> str:
    return f"operator {override.operator!r}" if override.operator else f"module {override.module!r}"


def _metric(recipe: Recipe, locations: Locations) -> Iterator[str]:
    asked = recipe.evaluate
    if asked.entry is None and asked.metric not in METRICS:
        yield (
            f"{locations.where(('evaluate', 'metric'))}: evaluate.metric = {asked.metric!r}; built in are "
            f"{', '.join(METRICS)}{suggestion(asked.metric, METRICS)}; others come from evaluate.entry"
        )


def _mixed(recipe: Recipe, locations: Locations) -> Iterator[str]:
    asked = recipe.quantize.mixed
    if asked is not None:
        budgets = {name: getattr(asked.budget, name) for name in ("latency", "size", "energy")}
        yield from _choices(("quantize", "mixed"), asked.formats, budgets, FLOAT_TO_OWN, locations)


def _learned(recipe: Recipe, target: Target, locations: Locations) -> Iterator[str]:
    from bitwright.hw_constraints.target import Capability

    asked = recipe.qat.mixed if recipe.qat is not None else None
    if asked is None:
        return
    path: KeyPath = ("qat", "mixed")
    budgets = {"latency": asked.budget.latency, "size": asked.budget.size}
    yield from _choices(path, asked.formats, budgets, FIRST_TO_LEAST, locations)
    is_known = bool(recipe.predict.tables) or Capability.COST in target.capabilities
    if asked.budget.latency is not None and not is_known:
        at: KeyPath = (*path, "budget", "latency")
        yield (
            f"{locations.where(at)}: {dotted(at)}: target {target.id!r} has no cost model; "
            "predict.tables = [FILE] brings a table of `bitwright measure kernels`, or limit the size"
        )


def _choices(
    path: KeyPath, formats: Sequence[str], budgets: Mapping[str, float | str | None], share: str, locations: Locations
) -> Iterator[str]:
    """Formats that are none, and amounts whose unit is none."""
    from bitwright.nas.block_formats import BLOCK_FORMATS

    for index, name in enumerate(formats):
        if name not in BLOCK_FORMATS:
            at: KeyPath = (*path, "formats", index)
            wrong = unknown(f"number format of {dotted(path)}.formats", name, BLOCK_FORMATS)
            yield f"{locations.where(at)}: {dotted(at)} = {name!r}; {wrong}"
    for name, value in budgets.items():
        if isinstance(value, str):
            try:
                amount(name, value, where=dotted(path), share=share)
            except InputError as error:
                yield f"{locations.where((*path, 'budget', name))}: {error}"


def _prune(recipe: Recipe, target: Target, locations: Locations) -> Iterator[str]:
    from bitwright.experiments.predicted_cost import missing_latency

    asked = recipe.qat.prune if recipe.qat is not None else None
    if asked is not None and asked.cost == "latency" and not recipe.predict.tables and (why := missing_latency(target)):
        path: KeyPath = ("qat", "prune")
        yield f"{locations.where(path)}: {dotted(path)}.cost = 'latency'; {why}"
