"""A candidate as the sections `model`, `train` and `quantize` of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from bitwright.experiments.extensions import SPACES
from bitwright.experiments.recipe import ModelSection, Quantize, QuantizeOverride, Recipe
from bitwright.experiments.recipe_training import FloatTrain, Spec
from bitwright.experiments.scheme_settings import scheme_of
from bitwright.experiments.search_workload import RecipeWorkload, varied_model
from bitwright.experiments.workbench import Workbench
from bitwright.nas.block_choices import BlockSettings
from bitwright.nas.finalists import patterns_of, standing_alone
from bitwright.nas.space import Candidate, SearchSpace, Value
from bitwright.quant.errors import InputError
from bitwright.quant.scheme import Override, QParamsSpec

if TYPE_CHECKING:
    import torch


def model_section(candidate: Candidate, space: SearchSpace, workload: RecipeWorkload) -> ModelSection:
    """The candidate's network: the recipe's model with other settings, or a part of it.

    Raises:
        InputError: it has arguments that a recipe cannot name.
    """
    architecture = space.architecture(candidate)
    section = workload.search.space
    if section.kind is not None and SPACES.load(section.kind).of_model is not None:
        return _part(architecture, workload)
    return varied_model(workload.recipe.model, architecture)


def _part(architecture: Mapping[str, Value], workload: RecipeWorkload) -> ModelSection:
    """A part of the recipe's own network (`models.elastic_part`)."""
    section = workload.search.space
    shapes = [_shape(each) for each in workload.example(workload.bench.new_model())]
    about_blocks = set(BlockSettings.model_fields)
    space = {name: value for name, value in section.settings.items() if name not in about_blocks}
    whole = workload.recipe.model.model_dump(mode="json", exclude_none=True)
    return ModelSection(
        kind="elastic_part",
        whole=whole,
        space={"kind": section.kind, **space},
        choices=dict(architecture),
        inputs=shapes,
    )


def _shape(argument: torch.Tensor | object) -> list[int]:
    shape, kind = getattr(argument, "shape", None), getattr(argument, "dtype", None)
    if shape is None or not getattr(kind, "is_floating_point", False):
        raise InputError(f"forward takes {type(argument).__name__} {kind or ''}, and a part is made with float tensors")
    return [int(side) for side in shape]


def train_section(candidate: Candidate, space: SearchSpace, workload: RecipeWorkload) -> FloatTrain | None:
    """As `search.finalists` trains, else as the search did; with the candidate's zeros."""
    asked = workload.search.finalists or workload.search.train
    if asked is None:
        return None
    return FloatTrain(**asked.model_dump(), sparsity=dict(patterns_of(candidate, space, workload)))


def quantize_section(candidate: Candidate, space: SearchSpace, workload: RecipeWorkload, written: Recipe) -> Quantize:
    """The formats of the candidate; rounding to nearest and no preparation, as the search scored it.

    Args:
        candidate: its formats become overrides behind the search's own.
        space: what it was chosen from.
        workload: the search's recipe on one target.
        written: the candidate's recipe so far, with its model.
    """
    asked = workload.recipe.quantize
    plain = Quantize(weights=asked.weights, activations=asked.activations)
    written = written.model_copy(update={"quantize": plain})
    standing = standing_alone(candidate, space, workload)
    own = _selecting(asked.overrides, written)
    return plain.model_copy(update={"overrides": (*own, *(_spelled(each, written) for each in standing.overrides))})


def _selecting(overrides: tuple[QuantizeOverride, ...], recipe: Recipe) -> Iterator[QuantizeOverride]:
    """The search's own overrides, as far as they select anything in this network: a smaller one lacks blocks."""
    if not overrides:
        return
    modules = dict(Workbench(recipe).new_model().named_modules())
    for each in overrides:
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
    trial = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"overrides": (brief,)})})
    meant = scheme_of(trial, Workbench(recipe).target).overrides[-1]
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
