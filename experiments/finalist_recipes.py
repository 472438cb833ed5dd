"""Finalists of a search as recipes: each trains, quantizes and exports its network from scratch.

A recipe says what the search did and nothing else: short training as `search.train` had it, formats as exceptions to
the target's scheme, weights rounded to nearest. Before it is written it is read back and its network compared with the
one that the search scored, by the hash of the network with its formats.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from bitwright.experiments.comparable import wilson_interval
from bitwright.experiments.datasets import Split
from bitwright.experiments.figure_text import format_value
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.recipe import AGREEMENT, Quantize, QuantizeOverride, Recipe
from bitwright.experiments.recipe_training import Spec
from bitwright.experiments.scheme_settings import scheme_of
from bitwright.experiments.search_result import Finalist, Limit
from bitwright.experiments.search_workload import RecipeWorkload, varied_model
from bitwright.experiments.stage_store import replace_file
from bitwright.experiments.workbench import Workbench
from bitwright.nas.figures import FIGURES
from bitwright.nas.finalists import hash_of_network, standing_alone
from bitwright.nas.result import Result
from bitwright.nas.review_limits import limit_costs
from bitwright.nas.search_outcome import SearchOutcome
from bitwright.nas.space import Candidate, SearchSpace
from bitwright.quant.errors import InputError
from bitwright.quant.scheme import Override, QParamsSpec

FOLDER = "finalists"
_ONE_DECISION_A_SAMPLE = ("top1", AGREEMENT)  # metrics whose noise is that of counting


def write_finalists(
    results: Sequence[Result], workload: RecipeWorkload, space: SearchSpace, folder: Path
) -> tuple[Finalist, ...]:
    """Writes a recipe for each of these candidates, `KEY.yaml`, in place of older ones.

    Args:
        results: scored candidates.
        workload: the search's recipe, its data and target.
        space: what the candidates were chosen from.
        folder: where the recipes go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.yaml"):
        old.unlink()
    return tuple(_write(each, workload, space, folder) for each in results)


def write_limits(
    outcome: SearchOutcome, workload: RecipeWorkload, space: SearchSpace, folder: Path
) -> tuple[Limit, ...]:
    """What each constraint costs; where that is not known, the recipe that tells is written: `without-NAME.yaml`."""
    limits = []
    results = {each.key: each for each in outcome.results}
    for cost in limit_costs(outcome):
        if cost.gain is not None:
            limits.append(Limit(cost=cost))
            continue
        name = f"without-{cost.constraint}"
        written = _write(results[cost.key], workload, space, folder, name=name)
        limits.append(Limit(cost=cost, recipe=written.recipe, problem=written.problem))
    return tuple(limits)


def _write(
    result: Result, workload: RecipeWorkload, space: SearchSpace, folder: Path, *, name: str | None = None
) -> Finalist:
    low = lower_end(result, workload)
    path = folder / f"{name or result.key}.yaml"
    try:
        recipe = finalist_recipe(result, workload, space)
        replace_file(path, f"{_header(result, recipe, low, path)}{_yaml(recipe)}")
        again = load_recipe(str(path))
        problem = _difference(result, again)
    except InputError as error:
        path.unlink(missing_ok=True)
        return Finalist(key=result.key, recipe="", problem=" ".join(str(error).split()), low=low)
    return Finalist(key=result.key, recipe=f"{folder.name}/{path.name}", problem=problem, low=low)


def finalist_recipe(result: Result, workload: RecipeWorkload, space: SearchSpace) -> Recipe:
    """The recipe of one candidate.

    Raises:
        InputError: its network cannot be built.
    """
    recipe, candidate = workload.recipe, Candidate(result.values)
    assert recipe.search is not None
    standing = standing_alone(candidate, space, workload)
    model = varied_model(recipe.model, standing.architecture)
    gate, low = recipe.evaluate.gate, lower_end(result, workload)
    if low is not None:
        gate = gate.model_copy(update={"bound": low if gate.bound is None else max(low, gate.bound)})
    plain = Quantize(weights=recipe.quantize.weights, activations=recipe.quantize.activations)
    changed = {
        "name": f"{recipe.name}-{result.key}",
        "description": f"{candidate}; found by the search of recipe {recipe.name}.",
        "model": model,
        "train": recipe.search.train,
        "quantize": plain.model_copy(update={"overrides": recipe.quantize.overrides}),
        "evaluate": recipe.evaluate.model_copy(update={"gate": gate}),
        "search": None,
    }
    written = recipe.model_copy(update=changed)
    overrides = tuple(_spelled(each, written) for each in standing.overrides)
    quantize = written.quantize.model_copy(update={"overrides": (*_selecting(written), *overrides)})
    return written.model_copy(update={"quantize": quantize})


def lower_end(result: Result, workload: RecipeWorkload) -> float | None:
    """The lower end of the 95 % interval of a candidate's accuracy, where it counts decisions on so many samples."""
    asked, data = workload.recipe.evaluate, workload.bench.data
    count = data.splits.get(Split.EVALUATE)
    counts = asked.entry is None and asked.metric in _ONE_DECISION_A_SAMPLE and data.ignore_label is None
    if not counts or count is None or "accuracy" not in result.figures:
        return None
    _, low, _ = wilson_interval(result.figures["accuracy"], min(count, asked.samples or count))
    return round(low, 3)


def _selecting(recipe: Recipe) -> Iterator[QuantizeOverride]:
    """The search's own overrides, as far as they select anything in this network: a smaller one lacks blocks."""
    modules = dict(Workbench(recipe).new_model().named_modules())
    for each in recipe.quantize.overrides:
        override = Override(module=each.module, operator=each.operator)
        if each.operator or any(override.selects(module_path=path, operator="") for path in modules):
            yield each


def _spelled(override: Override, recipe: Recipe) -> QuantizeOverride:
    """An override as a recipe says it: only the formats, where the target's own way of keeping them is meant."""
    if override.keep_float:
        return QuantizeOverride(module=override.module, keep_float=True)
    specs = {"weights": override.weights, "activations": override.activations}
    short = {name: Spec(format=spec.format.name) for name, spec in specs.items() if spec is not None}
    brief = QuantizeOverride(module=override.module, **short)
    target = Workbench(recipe).target
    trial = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"overrides": (brief,)})})
    meant = scheme_of(trial, target).overrides[-1]
    if (meant.weights, meant.activations) == (override.weights, override.activations):
        return brief
    full = {name: _full(spec) for name, spec in specs.items() if spec is not None}
    return QuantizeOverride(module=override.module, **full)


def _full(spec: QParamsSpec) -> Spec:
    return Spec(
        format=spec.format.name,
        symmetric=spec.symmetric,
        granularity=spec.granularity.value,
        block_size=spec.block_size,
        narrow_range=spec.narrow_range,
        scale_kind=spec.scale_kind.value,
        dynamic=spec.dynamic,
        observer=spec.observer,
        observer_arguments=dict(spec.observer_arguments),
    )


def _difference(result: Result, recipe: Recipe) -> str:
    """What the recipe, as it is read, makes another network than the search scored; empty when it is the same one."""
    if result.network is None:
        return ""
    bench = Workbench(recipe)
    model = bench.new_model()
    found = hash_of_network(model, bench.example(model), scheme_of(recipe, bench.target))
    if found == result.network:
        return ""
    return f"makes network {found}, and the search scored {result.network}"


def _yaml(recipe: Recipe) -> str:
    """Only what differs from the defaults."""
    written: dict[str, Any] = recipe.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=100)


def _header(result: Result, recipe: Recipe, low: float | None, path: Path) -> str:
    """What the search found, and how to see it again."""
    lines = [f"Candidate {result.key} of a search: {Candidate(result.values)}."]
    for origin in dict.fromkeys(kind.origin for kind in FIGURES.values()):
        names = [name for name, kind in FIGURES.items() if kind.origin == origin and name in result.figures]
        if names:
            lines.append(f"{origin}: {', '.join(f'{name} {result.figures[name]:.5g}' for name in names)}".capitalize())
    if low is not None:
        lines.append(
            f"The gate is the lower end of the 95 % interval of {format_value(result.figures['accuracy'], '%')} on so "
            "many samples. The same versions and machine, with OMP_NUM_THREADS=1 as in worker processes, train the "
            "same weights."
        )
    wrapped = [part for line in lines for part in textwrap.wrap(line, 110)]
    return "".join(f"# {line}\n" for line in (*wrapped, "", f"    bitwright run {path}")).replace("# \n", "#\n")
