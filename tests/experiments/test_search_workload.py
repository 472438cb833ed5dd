import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.search_workload import RecipeWorkload, search_space
from bitwright.experiments.stages.search import search_settings
from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.space import Candidate
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


def test_how_often_shared_weights_are_saved_does_not_change_it() -> None:
    often = workload("search.supernet.checkpoint_every=5")
    assert often.search.supernet is not None and often.search.supernet.checkpoint_every == 5
    assert often.fingerprint == workload("search.supernet.epochs=20").fingerprint
    assert often.fingerprint != workload("search.supernet.epochs=21").fingerprint


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
            r"search\.space\.kind = 'mobile'; unknown search space 'mobile'; there are: .*mobile_conv",
        ),
        ("search.sampler=tpo", r"search\.sampler = 'tpo'; accepts .*nsga2.*, random, tpe \(did you mean 'tpe'\?\)"),
        ("search.objectives=[latency]", r"search\.objectives.*latency_ms"),
        ("search.limits.macs=0", r"search\.limits\.macs = 0"),
        ("search.rungs=[1.0]", r"search\.rungs.* = 1"),
        ("search.rungs=[0.9]", r"rungs = \[0\.9\]: a training of 3 epochs pauses after each but the .* up to 0\.667"),
    ],
)
def test_mistakes_in_a_recipe_are_named_with_their_place(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("digits_search", [override])


def test_each_block_keeps_its_pattern_of_zeros_in_the_training() -> None:
    small = workload("search.train.epochs=1", "search.train.batch=256", "data.size=16")
    model = small.build({"width": 0.5, "depth": 1})
    weights = {name: each for name, each in model.named_parameters() if each.dim() > 1}
    small.train(model, {"blocks.1": "2:4", "blocks.2": "4x1"})
    for name, weight in weights.items():
        zero = (weight == 0).flatten(1)
        fits = weight.shape[1] % 4 == 0 if name.startswith("blocks.1.") else weight.shape[0] % 4 == 0
        has = name.startswith(("blocks.1.", "blocks.2.")) and fits
        assert float(zero.float().mean()) == pytest.approx(0.5 if has else 0.0), name
        if has and name.startswith("blocks.1."):
            assert (zero.view(len(zero), -1, 4).sum(-1) == 2).all(), name
        elif has:
            groups = zero.view(-1, 4, zero.shape[1])
            assert (groups.all(1) | ~groups.any(1)).all(), name


def test_the_user_s_own_network_is_made_elastic() -> None:
    space = "search.space={kind: elastic, width: [0.5], kernel: [], depth: [], multiple: 4, network_stages: 1}"
    own = workload(space, "data.size=16")
    whole, half = own.build({}), own.build(own.space.architecture(smallest(own.space)))
    assert parameters(half) < 0.6 * parameters(whole)
    there = pickle.loads(pickle.dumps(own))
    again = there.build(there.space.architecture(smallest(there.space)))
    assert all(torch.equal(one, two) for one, two in zip(half.parameters(), again.parameters(), strict=True))


def smallest(space: Any) -> Candidate:
    return Candidate(space.canonical({each.name: min(each.choices) for each in space.parameters}))


def test_without_a_training_weights_stay_and_patterns_are_refused() -> None:
    still = workload("search.train=null", "data.size=16")
    model = still.build({"width": 0.5})
    before = [each.clone() for each in model.parameters()]
    still.train(model)
    assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))
    with pytest.raises(InputError, match=r"search\.train = null, but the space has patterns of zeros"):
        still.train(model, {"blocks.1": "2:4"})


def test_a_recipe_reaches_every_setting_of_the_search() -> None:
    recipe = load_recipe(
        "digits_search",
        [
            "search.targets=[ethos-u85-1024]", "search.weights={x86-vnni: 1, ethos-u85-1024: 3}",
            "search.figures=[modelled_ms, naswot]", "search.objectives=[accuracy, modelled_uj]",
            "search.limits={accuracy: 90, modelled_ms: 2}", "search.screened=true",
            "search.sampler=informed", "search.rungs=[0.3, 0.6]", "search.earlier=[runs/before]",
        ],
    )  # fmt: skip
    settings = search_settings(recipe)
    assert settings.named == {"modelled_ms", "naswot", "accuracy", "modelled_uj"}
    assert settings.weights == {"x86-vnni": 1.0, "ethos-u85-1024": 3.0}
    assert settings.limits == {"accuracy": 90.0, "modelled_ms": 2.0}
    assert (settings.give_up, settings.screened, settings.sampler) == (True, True, "informed")
    assert settings.rungs == (0.3, 0.6)
    assert recipe.search is not None
    assert recipe.search.earlier == ("runs/before",)


def test_a_target_s_file_that_is_edited_in_mid_study_is_noticed(tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    target.write_text("id: mine\nextends: x86-vnni\nversion: 1\ndescription: Mine.\n")
    before = workload(f"target={target}").fingerprint["target file"]
    assert workload(f"target={target}").fingerprint["target file"] == before
    target.write_text(target.read_text().replace("Mine.", "Mine, changed."))
    assert workload(f"target={target}").fingerprint["target file"] != before


def test_a_training_pauses_after_each_pass_and_looking_changes_nothing() -> None:
    small = workload("search.train.epochs=3", "search.train.batch=256", "data.size=16", "evaluate.samples=100")
    scores: list[tuple[float, float]] = []
    models = [small.build({"width": 0.5, "depth": 1}) for _ in range(3)]

    def look(done: float) -> bool:
        scores.append((done, small.float_accuracy(models[0])))
        return True

    small.train(models[0], go_on=look)
    small.train(models[1])
    small.train(models[2], go_on=lambda done: done < 1 / 3)
    assert [done for done, _ in scores] == pytest.approx([1 / 3, 2 / 3])
    states = [each.state_dict() for each in models]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[1][name]) for name, value in states[2].items())


def test_rungs_need_a_metric_that_scores_a_float_network() -> None:
    recipe = load_recipe("digits_search", ["search.rungs=[0.3]", "evaluate.metric=agreement"])
    with pytest.raises(InputError, match=r"search\.rungs = \[0\.3\]: evaluate\.metric = 'agreement' compares with the"):
        search_settings(recipe)
