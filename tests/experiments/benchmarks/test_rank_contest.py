from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.experiments.benchmarks.narrow_networks import NarrowNet, narrow_space
from bitwright.experiments.benchmarks.once_for_all import phases, train_once_for_all
from bitwright.experiments.benchmarks.rank_contest import BAND, OURS, REFERENCE, Contest
from bitwright.nas.elastic import inherit
from bitwright.nas.elastic.built import BuiltElastic
from bitwright.nas.moves import largest_candidate, random_candidate
from bitwright.nas.supernet import SupernetSettings


def _contest(folder: Path) -> Contest:
    return Contest(
        widths=(2, 4),
        shared=SupernetSettings(epochs=1, random=1),
        alone=SupernetSettings(epochs=1),
        candidates=4,
        alike=2,
        seeds=(0, 1),
        folder=folder,
    )


def test_macs_are_those_of_the_convolutions_and_the_classifier(tmp_path: Path) -> None:
    contest = _contest(tmp_path)
    largest = largest_candidate(contest.space)  # 4 channels, 3×3, two layers a stage, at 8×8, 4×4 and 2×2
    expected = 9 * 64 * (3 * 4 + 4 * 4) + 9 * 16 * 2 * 16 + 9 * 4 * 2 * 16 + 4 * 10
    assert contest.macs(largest) == expected


def test_candidates_differ_and_those_of_equal_cost_lie_in_the_band(tmp_path: Path) -> None:
    contest = _contest(tmp_path)
    for group, count in ((contest.anywhere, 4), (contest.of_equal_cost, 2)):
        assert len({each.key for each in group}) == count
    middle = float(np.median([contest.macs(each) for each in contest.anywhere]))
    assert all(abs(contest.macs(each) / middle - 1) <= BAND for each in contest.of_equal_cost)


def test_both_sides_pass_as_often_through_networks(tmp_path: Path) -> None:
    contest = _contest(tmp_path)
    assert contest.passes == 21 * 3
    assert sum(each.networks * each.steps for each in phases(400)) == 400


class _Toy:
    """Two classes of constant pictures."""

    steps, fingerprint = 4, {"data": "toy"}

    def batches(self, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.steps):
            labels = torch.randint(2, (8,), generator=generator)
            yield (labels.view(-1, 1, 1, 1) + torch.zeros(8, 3, 8, 8),), labels

    def loss(self, outputs, labels):
        return torch.nn.functional.cross_entropy(outputs, labels)

    def distil(self, outputs, teacher):
        return (outputs - teacher).square().mean()


def test_the_reference_goes_on_after_a_phase_and_shares_its_weights(tmp_path: Path) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        elastic = BuiltElastic(narrow_space((2, 4)), NarrowNet)
        train_once_for_all(elastic, _Toy(), tmp_path, passes=32, lr=1e-2, seed=0)
        weights.append(elastic.largest.state_dict())
        (tmp_path / "phase-3.pt").unlink()  # as if the first run had been cut there
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    some = random_candidate(elastic.space, np.random.default_rng(0))
    width = int(some.values["width_2"])
    assert torch.equal(inherit(elastic, some).classifier.weight, weights[1]["classifier.weight"][:, :width])


@pytest.mark.slow
def test_a_whole_contest(tmp_path: Path) -> None:
    contest = _contest(tmp_path)
    for side in (OURS, REFERENCE):
        assert 0 < contest.inherited(side)(contest.anywhere[0]) <= 100
    assert 0 < contest.alone_accuracy(contest.anywhere[0], 0) <= 100
