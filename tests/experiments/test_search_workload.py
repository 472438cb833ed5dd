import pickle
from typing import Any

import pytest
import torch
from torch import nn

from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.search_workload import RecipeWorkload, search_space
from bitwright.nas.declared_space import DeclaredSpace
from bitwright.quant.errors import InputError


def workload(*overrides: str) -> RecipeWorkload:
    return RecipeWorkload(load_recipe("digits_search", ["target=x86-vnni", *overrides]))


def parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def test_an_architecture_replaces_settings_of_the_recipe_s_model() -> None:
    own, narrow = workload().build({}), workload().build({"width": 0.5, "depth": 1})
    assert parameters(narrow) < parameters(own)


def test_the_same_architecture_begins_with_the_same_weights() -> None:
    one, two = (workload().build({"width": 0.5}).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_choice_that_the_model_does_not_take_is_named() -> None:
    with pytest.raises(InputError, match="model 'digits_mobilenet' takes no kernel = 4: Input should be 3, 5 or 7"):
        workload().build({"kernel": 4})


def test_only_the_recipe_travels() -> None:
    here = workload()
    _ = here.bench.data
    there = pickle.loads(pickle.dumps(here))
    assert there.__dict__ == {"recipe": here.recipe}
    assert there.fingerprint == here.fingerprint


@pytest.mark.parametrize("change", ["search.train.epochs=9", "data.size=48", "calibrate.samples=20", "seed=1"])
def test_what_scores_follow_from_changes_the_fingerprint(change: str) -> None:
    assert workload(change).fingerprint != workload().fingerprint


def test_the_number_of_trials_does_not_change_it() -> None:
    assert workload("search.trials=99").fingerprint == workload().fingerprint


def test_a_target_whose_runtime_is_not_here_has_none() -> None:
    assert workload("target=ethos-u85-1024").runtime is None
    assert workload().runtime == "onnxruntime"


def test_the_space_of_a_recipe() -> None:
    recipe = workload().recipe
    assert recipe.search is not None
    assert isinstance(search_space(recipe.search), DeclaredSpace)


def make_space(**choices: Any) -> DeclaredSpace:
    recipe = workload(*(f"search.space.{name}={list(value)}" for name, value in choices.items())).recipe
    assert recipe.search is not None
    space: Any = search_space(recipe.search)
    return space


def test_choices_come_from_the_recipe() -> None:
    (width,) = (each for each in make_space(width=(0.25, 0.5)).parameters if each.name == "width")
    assert width.choices == (0.25, 0.5)


def test_an_entry_that_is_no_space_is_refused() -> None:
    recipe = load_recipe("digits_search", ["search.space={entry: 'collections:OrderedDict'}"])
    assert recipe.search is not None
    with pytest.raises(
        InputError, match=r"search\.space\.entry = 'collections:OrderedDict'.*a bitwright\.nas\.SearchSpace"
    ):
        search_space(recipe.search)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.space.kernal=[3]", r"search\.space\.kernal: no such key \(did you mean 'kernel'\?\)"),
        ("search.space.formats=[int88]", r"search\.space\.formats = .*did you mean 'int8'\?"),
        (
            "search.space.kind=mobile",
            r"search\.space\.kind = 'mobile'; unknown search space 'mobile'; there are: mobile_conv",
        ),
        ("search.sampler=tpo", r"search\.sampler = 'tpo'; accepts nsga2, random, tpe \(did you mean 'tpe'\?\)"),
        ("search.objectives=[latency]", r"search\.objectives.*latency_ms"),
        ("search.limits.macs=0", r"search\.limits\.macs = 0"),
    ],
)
def test_mistakes_in_a_recipe_are_named_with_their_place(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("digits_search", [override])
