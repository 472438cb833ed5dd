"""Finalists of a search as recipes: each trains from scratch by `search.finalists`, else as the search did.

A recipe says what was done and nothing else: the training, formats as exceptions to the target's scheme, weights
rounded to nearest. Its gate is the worse end of the interval of what it scored so. Before it counts it is read back and
its network compared with the one that the search scored, by the hash of the network with its formats.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from bitwright.experiments.finalist_sections import model_section, quantize_section, train_section
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.recipe import AccuracyGate, Recipe
from bitwright.experiments.scheme_settings import scheme_of
from bitwright.experiments.search_result import Finalist, Limit
from bitwright.experiments.search_workload import RecipeWorkload
from bitwright.experiments.stage_store import replace_file
from bitwright.experiments.workbench import Workbench
from bitwright.nas.figures import FIGURES, SCRATCH
from bitwright.nas.finalists import hash_of_network, hash_on_targets, patterns_of
from bitwright.nas.result import Result
from bitwright.nas.review_limits import limit_costs
from bitwright.nas.search_outcome import SearchOutcome
from bitwright.nas.space import Candidate, SearchSpace
from bitwright.nas.workload import Inherited
from bitwright.quant.errors import InputError

FOLDER = "finalists"


class FinalistWriter:
    """Writes recipes of candidates.

    Attributes:
        workloads: the search's recipe on each of its targets.
        space: what the candidates were chosen from.
        folder: where the recipes go; older ones are removed.
        inherited: the trained supernet whose weights candidates begin with, where nothing trains them from scratch.
        failed: why candidates could not be trained from scratch, by key.
    """

    def __init__(
        self,
        workloads: Sequence[RecipeWorkload],
        space: SearchSpace,
        folder: Path,
        inherited: Inherited | None = None,
        failed: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.workloads, self.space, self.folder, self.failed = tuple(workloads), space, folder, failed
        self.inherited = inherited if self.workloads[0].search.finalists is None else None
        folder.mkdir(parents=True, exist_ok=True)
        for old in (*folder.glob("*.yaml"), *folder.glob("*.safetensors")):
            old.unlink()

    def front(self, outcome: SearchOutcome) -> tuple[Finalist, ...]:
        """A recipe for each candidate of the front and each target: `KEY.yaml`, of several `KEY@TARGET.yaml`."""
        return tuple(self.write(each, each.key) for each in outcome.front)

    def limits(self, outcome: SearchOutcome) -> tuple[Limit, ...]:
        """What each constraint costs; where that is not known, the recipe that tells: `without-NAME.yaml`."""
        results = {each.key: each for each in outcome.results}
        found = []
        for cost in limit_costs(outcome):
            if cost.gain is not None:
                found.append(Limit(cost=cost))
                continue
            written = self.write(results[cost.key], f"without-{cost.constraint}")
            found.append(Limit(cost=cost, recipe=next(iter(written.recipes), ""), problem=written.problem))
        return tuple(found)

    def write(self, result: Result, name: str) -> Finalist:
        """The recipes of one candidate, a problem where there are none or they make another network."""
        alone = len(self.workloads) == 1
        low = result.figures.get(f"{self._scored}_low")
        paths: list[Path] = []
        try:
            for workload in self.workloads:
                target = workload.target.id
                path = self.folder / f"{name}{'' if alone else f'@{target}'}.yaml"
                paths.append(path)
                recipe = self.recipe(result, workload, alone=alone)
                replace_file(path, f"{_header(result, workload, recipe, path)}{_yaml(recipe)}")
            problem = self.failed.get(result.key) or self._difference(result, [load_recipe(str(p)) for p in paths])
        except InputError as error:
            for path in paths:
                path.unlink(missing_ok=True)
            return Finalist(key=result.key, low=low, problem=" ".join(str(error).split()))
        names = tuple(f"{self.folder.name}/{path.name}" for path in paths)
        return Finalist(key=result.key, low=low, recipes=names, problem=problem)

    def recipe(self, result: Result, workload: RecipeWorkload, *, alone: bool = True) -> Recipe:
        """The recipe of one candidate on one target.

        Raises:
            InputError: its network cannot be built, or a recipe cannot say what the candidate is.
        """
        recipe, candidate = workload.recipe, Candidate(result.values)
        assert recipe.search is not None
        model = model_section(candidate, self.space, workload)
        if self.inherited is not None:
            weights = self._inherited_weights(candidate, self.inherited)
            model = model.model_copy(update={"weights": str(weights)})
        figure = f"{self._scored}{'' if alone else f'@{workload.target.id}'}"
        changed = {
            "name": f"{recipe.name}-{result.key}",
            "description": f"{candidate}; found by the search of recipe {recipe.name}.",
            "model": model,
            "train": train_section(candidate, self.space, workload),
            "evaluate": recipe.evaluate.model_copy(update={"gate": _gate(result, figure, workload)}),
            "search": None,
        }
        written = recipe.model_copy(update=changed)
        return written.model_copy(update={"quantize": quantize_section(candidate, self.space, workload, written)})

    @property
    def _scored(self) -> str:
        """The figure that its recipe reproduces."""
        return "accuracy" if self.workloads[0].search.finalists is None else SCRATCH

    def _inherited_weights(self, candidate: Candidate, inherited: Inherited) -> Path:
        """What the candidate began with, as a file beside its recipe."""
        from safetensors.torch import save_file

        path = self.folder / f"{candidate.key}.safetensors"
        if not path.exists():
            state = inherited.network(candidate).state_dict()
            save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, path)
        return path

    def _difference(self, result: Result, recipes: Sequence[Recipe]) -> str:
        """What makes another network of the recipes, as they are read, than the search scored; empty if nothing."""
        if result.network is None:
            return ""
        hashes = []
        for recipe in recipes:
            bench = Workbench(recipe)
            model = bench.new_model()
            hashes.append(hash_of_network(model, bench.example(model), scheme_of(recipe, bench.target)))
        candidate, first = Candidate(result.values), self.workloads[0]
        found = hash_on_targets(hashes, patterns_of(candidate, self.space, first))
        return "" if found == result.network else f"makes network {found}, and the search scored {result.network}"


def _gate(result: Result, figure: str, workload: RecipeWorkload) -> AccuracyGate:
    """The search's own, and the worst score that is the same within its noise, where that is known."""
    gate, up = workload.recipe.evaluate.gate, workload.higher_is_better
    name, at, target = figure.partition("@")
    worst = result.figures.get(f"{name}_{'low' if up else 'high'}{at}{target}")
    if worst is None:
        return gate
    # Rounded outwards, so that the score itself passes.
    worst = (math.floor(1e3 * worst) if up else math.ceil(1e3 * worst)) / 1e3
    tighter = max if up else min
    return gate.model_copy(update={"bound": worst if gate.bound is None else tighter(worst, gate.bound)})


def _yaml(recipe: Recipe) -> str:
    """Only what differs from the defaults."""
    written: dict[str, Any] = recipe.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=100)


def _header(result: Result, workload: RecipeWorkload, recipe: Recipe, path: Path) -> str:
    """What the search found, and how to see it again."""
    lines = [f"Candidate {result.key} of a search: {Candidate(result.values)}."]
    for origin in dict.fromkeys(kind.origin for kind in FIGURES.values()):
        names = [name for name, kind in FIGURES.items() if kind.origin == origin and name in result.figures]
        if names:
            lines.append(f"{origin}: {', '.join(f'{name} {result.figures[name]:.5g}' for name in names)}".capitalize())
    if recipe.evaluate.gate.bound != workload.recipe.evaluate.gate.bound:
        figure = "accuracy" if workload.search.finalists is None else SCRATCH
        lines.append(f"The gate is the worse end of the 95 % interval of {figure} over the choice of samples.")
    if recipe.train is not None:
        lines.append("The same versions and machine, with OMP_NUM_THREADS=1 as in workers, train the same weights.")
    if recipe.model.weights is not None:
        lines.append("It begins with the weights that the search's supernet gave it.")
    wrapped = [part for line in lines for part in textwrap.wrap(line, 110)]
    return "".join(f"# {line}\n" for line in (*wrapped, "", f"    bitwright run {path}")).replace("# \n", "#\n")
