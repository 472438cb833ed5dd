"""Finalists of a search as recipes: each trains as the search did, or takes what it inherited, quantizes and exports.

A recipe says what the search did and nothing else: short training as `search.train` had it, formats as exceptions to
the target's scheme, weights rounded to nearest. Before it counts it is read back and its network compared with the one
that the search scored, by the hash of the network with its formats.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bitwright.experiments.comparable import wilson_interval
from bitwright.experiments.datasets import Split
from bitwright.experiments.figure_text import format_value
from bitwright.experiments.finalist_sections import model_section, quantize_section
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.recipe import AGREEMENT, Recipe
from bitwright.experiments.scheme_settings import scheme_of
from bitwright.experiments.search_result import Finalist, Limit
from bitwright.experiments.search_workload import RecipeWorkload
from bitwright.experiments.stage_store import replace_file
from bitwright.experiments.workbench import Workbench
from bitwright.nas.figures import FIGURES
from bitwright.nas.finalists import hash_of_network, hash_on_targets
from bitwright.nas.result import Result
from bitwright.nas.review_limits import limit_costs
from bitwright.nas.search_outcome import SearchOutcome
from bitwright.nas.space import Candidate, SearchSpace
from bitwright.nas.workload import Inherited
from bitwright.quant.errors import InputError

FOLDER = "finalists"
_ONE_DECISION_A_SAMPLE = ("top1", AGREEMENT)  # metrics whose noise is that of counting


class FinalistWriter:
    """Writes recipes of candidates.

    Attributes:
        workloads: the search's recipe on each of its targets.
        space: what the candidates were chosen from.
        folder: where the recipes go; older ones are removed.
        inherited: the trained supernet whose weights candidates begin with, if there is one.
    """

    def __init__(
        self,
        workloads: Sequence[RecipeWorkload],
        space: SearchSpace,
        folder: Path,
        inherited: Inherited | None = None,
    ) -> None:
        self.workloads, self.space, self.folder, self.inherited = tuple(workloads), space, folder, inherited
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
        paths, low = [], lower_end(result, self.workloads[0], "accuracy")
        try:
            for workload in self.workloads:
                target = workload.target.id
                path = self.folder / f"{name}{'' if alone else f'@{target}'}.yaml"
                paths.append(path)
                figure = "accuracy" if alone else f"accuracy@{target}"
                recipe = self.recipe(result, workload, figure)
                replace_file(path, f"{_header(result, workload, recipe, figure, path)}{_yaml(recipe)}")
            problem = self._difference(result, [load_recipe(str(path)) for path in paths])
        except InputError as error:
            for path in paths:
                path.unlink(missing_ok=True)
            return Finalist(key=result.key, problem=" ".join(str(error).split()), low=low)
        names = tuple(f"{self.folder.name}/{path.name}" for path in paths)
        return Finalist(key=result.key, recipes=names, problem=problem, low=low)

    def recipe(self, result: Result, workload: RecipeWorkload, figure: str = "accuracy") -> Recipe:
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
        gate, low = recipe.evaluate.gate, lower_end(result, workload, figure)
        if low is not None:
            gate = gate.model_copy(update={"bound": low if gate.bound is None else max(low, gate.bound)})
        changed = {
            "name": f"{recipe.name}-{result.key}",
            "description": f"{candidate}; found by the search of recipe {recipe.name}.",
            "model": model,
            "train": recipe.search.train,
            "evaluate": recipe.evaluate.model_copy(update={"gate": gate}),
            "search": None,
        }
        written = recipe.model_copy(update=changed)
        return written.model_copy(update={"quantize": quantize_section(candidate, self.space, workload, written)})

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
        found = hash_on_targets(hashes)
        return "" if found == result.network else f"makes network {found}, and the search scored {result.network}"


def lower_end(result: Result, workload: RecipeWorkload, figure: str) -> float | None:
    """The lower end of the 95 % interval of a candidate's accuracy, where it counts decisions on so many samples."""
    asked, data = workload.recipe.evaluate, workload.bench.data
    count = data.splits.get(Split.EVALUATE)
    counts = asked.entry is None and asked.metric in _ONE_DECISION_A_SAMPLE and data.ignore_label is None
    if not counts or count is None or figure not in result.figures:
        return None
    _, low, _ = wilson_interval(result.figures[figure], min(count, asked.samples or count))
    return round(low, 3)


def _yaml(recipe: Recipe) -> str:
    """Only what differs from the defaults."""
    written: dict[str, Any] = recipe.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=100)


def _header(result: Result, workload: RecipeWorkload, recipe: Recipe, figure: str, path: Path) -> str:
    """What the search found, and how to see it again."""
    lines = [f"Candidate {result.key} of a search: {Candidate(result.values)}."]
    for origin in dict.fromkeys(kind.origin for kind in FIGURES.values()):
        names = [name for name, kind in FIGURES.items() if kind.origin == origin and name in result.figures]
        if names:
            lines.append(f"{origin}: {', '.join(f'{name} {result.figures[name]:.5g}' for name in names)}".capitalize())
    if lower_end(result, workload, figure) is not None:
        lines.append(
            f"The gate is the lower end of the 95 % interval of {format_value(result.figures[figure], '%')} on so "
            "many samples."
        )
    if recipe.train is not None:
        lines.append("The same versions and machine, with OMP_NUM_THREADS=1 as in workers, train the same weights.")
    if recipe.model.weights is not None:
        lines.append("It begins with the weights that the search's supernet gave it.")
    wrapped = [part for line in lines for part in textwrap.wrap(line, 110)]
    return "".join(f"# {line}\n" for line in (*wrapped, "", f"    bitwright run {path}")).replace("# \n", "#\n")
