"""A recipe as the search sees it: a family of networks with its data, training and metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bitwright.experiments.entries import call_entry, wrong_result
from bitwright.experiments.extensions import SPACES
from bitwright.experiments.recipe import ModelSection, Recipe
from bitwright.experiments.recipe_search import Search
from bitwright.experiments.sparse_blocks import sparse_blocks
from bitwright.experiments.workbench import Workbench
from bitwright.hw_constraints.target_types import Target
from bitwright.nas.space import Candidate, SearchSpace, Value
from bitwright.nas.workload import NONE_SPARSE, Accuracy
from bitwright.quant.errors import InputError
from bitwright.quant.scheme import QuantScheme

if TYPE_CHECKING:
    import torch

    from bitwright.nas.elastic import Elastic

_SCORES_FOLLOW_FROM = ("model", "data", "example_inputs", "evaluate", "calibrate", "quantize", "seed")


def search_space(asked: Search) -> SearchSpace:
    """The space that a recipe names.

    Raises:
        InputError: there is none of that name, its settings are wrong, or the user's entry returns no space.
    """
    section = asked.space
    if section.entry is not None:
        space = call_entry("search.space.entry", section.entry, **section.settings.get("arguments", {}))
        if not all(hasattr(space, name) for name in ("parameters", "canonical", "architecture", "formats")):
            raise wrong_result("search.space.entry", section.entry, space, "a bitwright.nas.SearchSpace")
        return space  # type: ignore[no-any-return]
    assert section.kind is not None
    kind = SPACES.load(section.kind)
    return kind.build(kind.settings.model_validate(section.settings))  # type: ignore[no-any-return]


def varied_model(section: ModelSection, architecture: Mapping[str, Value]) -> ModelSection:
    """A recipe's model with some of its settings, or of its entry's arguments, replaced."""
    settings = dict(section.settings)
    if section.kind is not None:
        settings.update(architecture)
    else:
        settings["arguments"] = {**settings.get("arguments", {}), **architecture}
    return ModelSection(kind=section.kind, entry=section.entry, **settings)


@dataclass(frozen=True, eq=False)
class RecipeWorkload:
    """See `nas.workload.Workload`. Only the recipe travels to workers; they open the data themselves."""

    recipe: Recipe

    def __getstate__(self) -> dict[str, Any]:
        return {"recipe": self.recipe}

    @cached_property
    def bench(self) -> Workbench:
        """The recipe's data and target."""
        return Workbench(self.recipe)

    @property
    def search(self) -> Search:
        """The recipe's section."""
        assert self.recipe.search is not None
        return self.recipe.search

    @property
    def target(self) -> Target:
        """The accelerator."""
        return self.bench.target

    @cached_property
    def scheme(self) -> QuantScheme:
        """What the recipe's `quantize` asks for."""
        from bitwright.experiments.scheme_settings import scheme_of

        return scheme_of(self.recipe, self.target)

    @cached_property
    def runtime(self) -> str | None:
        """The first of the runtimes to measure on."""
        return next(iter(self.bench.runtimes(self.recipe.measure.runtimes)), None)

    @property
    def higher_is_better(self) -> bool:
        """The direction of the recipe's metric."""
        return self.bench.higher_is_better

    @cached_property
    def fingerprint(self) -> Mapping[str, Any]:
        """The sections that scores follow from, and what the model's code, the data and the target's file are."""
        return {
            **{name: self.recipe.section(name) for name in _SCORES_FOLLOW_FROM},
            "train": self.recipe.section("search.train"),
            **({"supernet": self._supernet_section()} if self.search.supernet else {}),
            "model code": self.bench.model_fingerprint,
            "data read": self.bench.data.fingerprint,
            "target file": self.bench.target_fingerprint,
        }

    def _supernet_section(self) -> dict[str, Any]:
        """What weights follow from: how often they are saved does not change them."""
        section: dict[str, Any] = self.recipe.section("search.supernet")
        return {name: value for name, value in section.items() if name != "checkpoint_every"}

    def from_scratch(self) -> RecipeWorkload:
        """The same candidates with the training of `search.finalists` and no weights to inherit."""
        own = self.search.model_copy(update={"train": self.search.finalists, "supernet": None, "rungs": ()})
        return RecipeWorkload(self.recipe.model_copy(update={"search": own}))

    @cached_property
    def elastic(self) -> Elastic | None:
        """The recipe's own network made elastic, for spaces that follow from it; None for all others."""
        section = self.search.space
        if section.kind is None:
            return None
        kind = SPACES.load(section.kind)
        if kind.of_model is None:
            return None
        model = self.bench.new_model()
        made: Elastic = kind.of_model(kind.settings.model_validate(section.settings), model, self.example(model))
        return made

    @cached_property
    def space(self) -> SearchSpace:
        """What candidates are chosen from; raises as `search_space`, and where nothing of the network can shrink."""
        return search_space(self.search) if self.elastic is None else self.elastic.space

    def build(self, architecture: Mapping[str, Value]) -> torch.nn.Module:
        """The recipe's model with some of its settings replaced, and fresh weights; cut out of an elastic one.

        Raises:
            InputError: the model does not take these settings.
        """
        if architecture and self.elastic is not None:
            from bitwright.nas.elastic import inherit

            return inherit(self.elastic, Candidate(architecture)).eval()
        model = varied_model(self.recipe.model, architecture)
        try:
            return Workbench(self.recipe.model_copy(update={"model": model})).new_model()
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise InputError(
                f"search.space: model {model.kind!r} takes no {key} = {first['input']!r}: {first['msg']}"
            ) from None

    def example(self, model: torch.nn.Module) -> tuple[Any, ...]:
        """The recipe's example inputs."""
        return self.bench.example(model)

    def train(
        self,
        model: torch.nn.Module,
        sparsity: Mapping[str, str] = NONE_SPARSE,
        go_on: Callable[[float], bool] | None = None,
    ) -> None:
        """As `search.train` says, asking whether to go on after each pass; nothing where it is null.

        Raises:
            InputError: the loss is no longer finite, or patterns are asked for and nothing is trained.
        """
        from bitwright.experiments.inputs import arguments_of
        from bitwright.experiments.training import Schedule, adamw, fit

        if self.search.train is None:
            if sparsity:
                raise InputError(
                    "search.train = null, but the space has patterns of zeros, which weights are trained in"
                )
            return
        read = arguments_of(model, self.recipe.data.inputs)
        schedule = Schedule(**self.search.train.model_dump())
        optimizer = adamw(model, schedule)
        zeros = sparse_blocks(model, optimizer, sparsity)
        after_step = zeros.on_step if zeros is not None else None
        passes = fit(
            model, self.bench.data, read, schedule, seed=self.recipe.seed, optimizer=optimizer, after_step=after_step
        )
        for done, _ in enumerate(passes, start=1):
            if go_on is not None and done < schedule.epochs and not go_on(done / schedule.epochs):
                break
        if zeros is not None:
            zeros.finish()
        model.eval()

    def float_accuracy(self, model: torch.nn.Module) -> float:
        """The recipe's metric, as PyTorch computes the network."""
        from bitwright.experiments.evaluation import evaluate_model

        return evaluate_model(self.bench, model).metrics[self.recipe.evaluate.metric]

    def calibration(self, model: torch.nn.Module) -> Iterator[Any]:
        """The recipe's calibration samples."""
        return self.bench.calibration(model)

    def accuracy(self, model: torch.nn.Module, artifact: Path) -> Accuracy:
        """The recipe's metric, as the first of the target's runtimes computes it from the artefact."""
        import torch

        from bitwright.experiments.evaluation import evaluate
        from bitwright.experiments.recipe import AGREEMENT
        from bitwright.experiments.runtime_model import RuntimeModel

        with torch.no_grad():
            output = model(*self.example(model))
        runtimes, _ = self.bench.runtimes_or_simulator()
        metric = self.recipe.evaluate.metric
        float_too = [model] if metric == AGREEMENT else []  # it is of the first network with each other
        scores, _ = evaluate(self.bench, model, [*float_too, RuntimeModel(artifact, runtimes[0], output)])
        value, interval = scores[-1].metrics[metric], scores[-1].interval
        return Accuracy(value) if interval is None else Accuracy(value, interval.low, interval.high)
