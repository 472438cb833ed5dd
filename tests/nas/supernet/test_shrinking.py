from collections import Counter
from types import ModuleType

import pytest

from bitwright.nas.space import Parameter
from bitwright.nas.supernet.shrinking import check_shrinking, drawn, open_choices
from bitwright.quant.errors import InputError

DEPTH = Parameter(name="depth", choices=(1, 2, 3, 4), ordered=True)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(0.0, (4,)), (0.39, (4,)), (0.4, (4, 3)), (0.5, (4, 3, 2)), (0.6, (4, 3, 2, 1)), (1.0, (4, 3, 2, 1))],
)
def test_smaller_choices_open_one_by_one(progress: float, expected: tuple[int, ...]) -> None:
    # three smaller ones between 0.4 and 0.7: at 0.4, 0.5, 0.6
    assert open_choices(DEPTH, {"de*": (0.4, 0.7)}, progress + 1e-12) == expected


def test_parameters_that_nothing_names_are_open_and_unordered_ones_open_at_once() -> None:
    activation = Parameter(name="activation", choices=("relu", "hswish"), ordered=False)
    assert open_choices(DEPTH, {}, 0.0) == (4, 3, 2, 1)
    assert open_choices(activation, {"act*": (0.5, 1.0)}, 0.4) == ("relu",)
    assert open_choices(activation, {"act*": (0.5, 1.0)}, 0.5) == ("relu", "hswish")


def test_a_step_has_the_largest_the_smallest_and_some_by_chance(tiny: ModuleType) -> None:
    space, settings = tiny.Space(), tiny.settings(random=2, shrinking={})
    first, second, *others = drawn(space, settings, 5, 18)
    assert first.values == {"width": 8, "kernel": 5, "deep": True, "format": "int8"}
    assert second.values == {"width": 2, "kernel": 1, "deep": False, "format": "float32"}
    assert len(others) <= 2
    assert drawn(space, settings, 5, 18) == (first, second, *others)
    by_chance = {tuple(each.key for each in drawn(space, settings, step, 18)[2:]) for step in range(18)}
    assert len(by_chance) > 10


def test_every_architecture_is_drawn_about_as_often(tiny: ModuleType) -> None:
    space, settings = tiny.Space(), tiny.settings(random=1, shrinking={})
    counts = Counter(
        tuple(space.architecture(each).values())
        for step in range(1_800)
        for each in drawn(space, settings, step, 1_800)[2:]
    )
    assert len(counts) == 16  # of 3 · 3 · 2, the largest and the smallest are trained anyway
    # Each is drawn 100 times on average; a binomial of 1,800 draws lies within 5 of its standard deviations of 9.7.
    assert all(abs(count - 100) < 49 for count in counts.values())


def test_nothing_but_the_largest_is_trained_while_nothing_is_open(tiny: ModuleType) -> None:
    closed = tiny.settings(shrinking={"*": (0.5, 1.0)})
    assert len(drawn(tiny.Space(), closed, 0, 18)) == 1
    assert len(drawn(tiny.Space(), closed, 9, 18)) > 1


def test_a_glob_that_names_nothing_is_refused(tiny: ModuleType) -> None:
    with pytest.raises(
        InputError, match=r"supernet.shrinking: 'depht\*' matches no parameter; there are: width, kernel, deep, format"
    ):
        check_shrinking(tiny.Space(), {"depht*": (0.0, 0.5)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "supernet.epochs = 0; allowed: 1 and more"),
        ({"lr": -1.0}, r"supernet.lr = -1.0, .*allowed: a positive rate"),
        ({"labels": 2.0}, r"supernet.labels = 2.0; allowed: 0 \(imitation alone\) to 1"),
        ({"shrinking": {"w*": (0.5, 0.2)}}, r"'w\*' opens from 0.5 to 0.2; allowed: 0 <= begin <= end <= 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tiny: ModuleType, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny.settings(**changes)
