import subprocess
import sys

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.space import Candidate, Parameter, sample, size
from bitwright.nas.spaces import load_space, space_names
from bitwright.nas.spaces.mobile_conv import Settings, build
from bitwright.quant.errors import InputError


def space(**settings: object) -> DeclaredSpace:
    given_ = {"width": (0.5, 1.0), "kernel": (3, 5), "formats": ("int8", "float32"), "stages": 2, **settings}
    return build(Settings.model_validate(given_))


VALUES = {"width": 0.5, "kernel": 3, "format_0": "int8", "format_1": "float32"}


@given(st.permutations(list(VALUES)))
def test_the_order_of_choices_does_not_change_the_key(order: list[str]) -> None:
    shuffled = {name: VALUES[name] for name in order}
    assert Candidate(space().canonical(shuffled)).key == Candidate(space().canonical(VALUES)).key


def test_one_and_one_point_zero_are_the_same_width() -> None:
    one, float_one = ({**VALUES, "width": width} for width in (1, 1.0))
    assert Candidate(space().canonical(one)).key == Candidate(space().canonical(float_one)).key


def test_the_key_is_the_same_in_another_process() -> None:
    key = Candidate(space().canonical(VALUES)).key
    code = f"from bitwright.nas.space import Candidate; print(Candidate({VALUES!r}).key)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == key


@pytest.mark.parametrize("name", list(VALUES))
def test_each_choice_changes_the_key(name: str) -> None:
    parameter = next(each for each in space().parameters if each.name == name)
    other = next(choice for choice in parameter.choices if choice != VALUES[name])
    assert Candidate({**VALUES, name: other}).key != Candidate(VALUES).key


def test_ordered_choices_are_integers_to_the_sampler() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    candidate = sample(space(), trial)
    assert trial.params["width"] == (0.5, 1.0).index(float(candidate.values["width"]))
    assert isinstance(trial.distributions["width"], optuna.distributions.IntDistribution)
    assert isinstance(trial.distributions["format_0"], optuna.distributions.CategoricalDistribution)


def test_the_size_is_the_number_of_combinations() -> None:
    assert size(space()) == 2 * 2 * 2**2


def test_only_the_builder_s_arguments_are_architecture() -> None:
    assert space().architecture(Candidate(VALUES)) == {"width": 0.5, "kernel": 3}


def blocks(count: int) -> nn.Module:
    model = nn.Module()
    model.blocks = nn.Sequential(*(nn.Identity() for _ in range(count)))
    return model


def test_stages_are_runs_of_consecutive_blocks() -> None:
    formats = space().formats(Candidate(VALUES), blocks(5))
    assert formats == {
        "blocks.0": "int8",
        "blocks.1": "int8",
        "blocks.2": "int8",
        "blocks.3": "float32",
        "blocks.4": "float32",
    }


def test_more_stages_than_blocks_are_refused() -> None:
    with pytest.raises(InputError, match=r"the model has 1 blocks in 'blocks'; stages = 2 cannot be more"):
        space().formats(Candidate(VALUES), blocks(1))


def test_a_path_without_blocks_is_refused() -> None:
    with pytest.raises(InputError, match=r"blocks = 'features'; the model has no such module, it has blocks"):
        space(blocks="features").formats(Candidate(VALUES), blocks(4))


def test_a_space_without_choices_is_refused() -> None:
    with pytest.raises(InputError, match="search space: nothing can be varied; give choices for width"):
        _ = build(Settings())
    with pytest.raises(InputError, match="search space: width has no choices; give some, or leave it out"):
        space(width=())
    with pytest.raises(InputError, match=r"search space: width = \[1, 1\] names a choice twice"):
        Parameter(name="width", choices=(1, 1), ordered=True)


def test_an_unknown_format_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValidationError, match=r"unknown block format 'int88'; there are: .* \(did you mean 'int8'\?\)"):
        space(formats=("int88",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0.7}, r"width = 0.7; its choices are \[0.5, 1.0\]"),
        ({"depth": 3}, "depth cannot be varied; there are: width, kernel"),
    ],
)
def test_values_outside_the_space_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        space().canonical({**VALUES, **change})


def test_spaces_are_listed_without_importing_them() -> None:
    code = (
        "import sys, bitwright.nas.spaces as s; assert 'mobile_conv' in s.space_names();"
        "assert not {'bitwright.nas.spaces.mobile_conv', 'torch', 'optuna'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_space_is_found_by_its_name() -> None:
    kind = load_space("mobile_conv")
    assert isinstance(kind.build(kind.settings(width=(0.5, 1.0))), DeclaredSpace)
    assert "mobile_conv" in space_names()
    with pytest.raises(InputError, match=r"unknown search space 'mobile_con'; .*did you mean 'mobile_conv'\?"):
        load_space("mobile_con")
