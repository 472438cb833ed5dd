import itertools
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

from bitwright.nas.supernet import InheritedAccuracy, StandAloneAccuracy, rank_correlation
from bitwright.nas.supernet.kept_scores import KeptScores
from bitwright.quant.errors import InputError


class _Counting:
    def __init__(self, task: object) -> None:
        self.task, self.scored = task, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.task, name)

    def score(self, network: torch.nn.Module) -> float:
        self.scored += 1
        return self.task.score(network)


def test_scores_are_found_once_and_formats_share_them(tiny: ModuleType, tmp_path: Path) -> None:
    elastic, task = tiny.TinyElastic(), _Counting(tiny.TinyTask())
    first = InheritedAccuracy(elastic=elastic, task=task, folder=tmp_path)
    score = first(tiny.candidate(4, 3, True))
    assert first(tiny.candidate(4, 3, True, "float32")) == score
    assert InheritedAccuracy(elastic=elastic, task=task, folder=tmp_path)(tiny.candidate(4, 3, True)) == score
    assert task.scored == 1


def test_scores_of_other_weights_are_not_taken(tiny: ModuleType, tmp_path: Path) -> None:
    task = _Counting(tiny.TinyTask())
    for seed in range(2):
        InheritedAccuracy(elastic=tiny.TinyElastic(seed), task=task, folder=tmp_path)(tiny.candidate())
    assert task.scored == 2


def test_a_candidates_network_has_statistics_of_its_own(tiny: ModuleType, tmp_path: Path) -> None:
    accuracy = InheritedAccuracy(elastic=tiny.TinyElastic(), task=tiny.TinyTask(), folder=tmp_path)
    network = accuracy.network(tiny.candidate(2, 1, False))
    images = torch.cat([arguments[0] for arguments in accuracy.calibration_batches])
    arrived = torch.nn.functional.conv2d(images, network.stem.weight)
    torch.testing.assert_close(network.norm.running_mean, arrived.mean((0, 2, 3)))
    assert not network.training


def test_stand_alone_trainings_are_kept_and_repeatable(tiny: ModuleType, tmp_path: Path) -> None:
    def build(candidate: object, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return tiny.TinyElastic().network(candidate)

    task = _Counting(tiny.TinyTask())
    alone, again = (
        StandAloneAccuracy(
            space=tiny.Space(), build=build, task=task, settings=tiny.settings(epochs=8), folder=tmp_path / name
        )
        for name in "ab"
    )
    score = alone(tiny.candidate(), 0)
    assert score > 0.6
    assert alone(tiny.candidate(), 0) == score == again(tiny.candidate(), 0)
    assert task.scored == 2
    one, other = alone.trained(tiny.candidate(), 0), alone.trained(tiny.candidate(), 1)
    assert not torch.equal(one.stem.weight, other.stem.weight)


def test_damaged_scores_are_named_and_nan_is_not_kept(tmp_path: Path) -> None:
    kept = KeptScores(tmp_path)
    (tmp_path / "a.json").write_text('{"sco')
    with pytest.raises(InputError, match=r"a.json: not a score \(.*\); remove it to find it again"):
        kept.score("a", lambda: 1.0)
    with pytest.raises(InputError, match=r"b.json: the score became nan; nothing is kept"):
        kept.score("b", lambda: math.nan)
    assert kept.score("b", lambda: 0.5) == 0.5


def test_tau_counts_pairs(tmp_path: Path) -> None:
    """Against the definition: concordant less discordant pairs, over the root of the pairs untied on each side."""
    generator = torch.Generator().manual_seed(0)
    a = [round(float(x), 1) for x in torch.randn(30, generator=generator)]
    b = [round(x + float(y), 1) for x, y in zip(a, torch.randn(30, generator=generator), strict=True)]
    signs = [
        ((a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])) for i, j in itertools.combinations(range(30), 2)
    ]
    expected = sum(x * y for x, y in signs) / math.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))
    found = rank_correlation(a, b)
    assert found.tau == pytest.approx(expected)
    assert found.low < found.tau < found.high


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [([1.0, 2.0], [1.0, 2.0], "at least 3"), ([1.0] * 4, [1.0, 2.0, 3.0, 4.0], "all scores of one side are equal")],
)
def test_scores_that_order_nothing_are_refused(a: list[float], b: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rank_correlation(a, b)
