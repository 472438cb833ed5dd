import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from bitwright.experiments.datasets.digits import Settings, open_digits
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.search_supernet import Supernet, trained_supernet
from bitwright.experiments.search_workload import RecipeWorkload, search_space
from bitwright.experiments.supernet_task import DataTask
from bitwright.nas.moves import largest_candidate


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10)).eval()


def digits_task() -> DataTask:
    data = open_digits(Settings(size=8))
    return DataTask(data=data, read=lambda batch: (batch[0],), batch=64, samples=100, origin=(digits_task, ()))


def test_passes_are_whole_and_repeatable() -> None:
    task = digits_task()
    passes = [list(task.batches(seed)) for seed in (0, 0, 1)]
    assert [len(each) for each in passes] == [task.steps] * 3
    assert sum(len(labels) for _, labels in passes[0]) == 1300
    assert torch.equal(passes[0][0][0][0], passes[1][0][0][0])
    assert not torch.equal(passes[0][0][1], passes[2][0][1])


def test_scores_are_those_of_the_first_samples_that_are_evaluated() -> None:
    task, network = digits_task(), _network()
    images, labels = next(iter(task.data.loader("evaluate", 100, None)))
    assert task.score(network) == pytest.approx(100 * float((network(images).argmax(1) == labels).float().mean()))


def test_imitation_is_least_where_both_agree() -> None:
    task, logits = digits_task(), torch.randn(4, 10)
    assert float(task.distil(logits, logits)) == pytest.approx(0, abs=1e-6)
    assert float(task.distil(logits + torch.randn(4, 10), logits)) > 0.01


def test_it_travels_by_its_origin() -> None:
    assert pickle.loads(pickle.dumps(digits_task())).score(_network()) == digits_task().score(_network())
    with pytest.raises(TypeError, match="no origin, so it cannot travel"):
        pickle.dumps(DataTask(data=digits_task().data, read=lambda batch: batch, batch=1))


@pytest.mark.slow
def test_a_recipes_candidates_inherit_weights_that_travel(tmp_path: Path) -> None:
    recipe = load_recipe("digits_search", ("data.size=32", "search.space.depth=[2]"))
    workload, asked = RecipeWorkload(recipe), Supernet(epochs=2, samples=100)
    assert recipe.search is not None
    space = search_space(recipe.search)
    inherited = trained_supernet(workload, space, asked, tmp_path)
    chosen = largest_candidate(space)
    score = inherited(chosen)
    assert score > 30  # ten classes
    assert list((tmp_path / "events").iterdir())
    elsewhere = pickle.loads(pickle.dumps(inherited))
    assert elsewhere.task.score(elsewhere.network(chosen)) == score
