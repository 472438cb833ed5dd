import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bitwright.nas.from_scratch import ranks, trained_from_scratch, with_scores
from bitwright.nas.result import Outcome, Result
from bitwright.nas.search_outcome import SearchOutcome, Told
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate
from bitwright.nas.workers import InProcess
from bitwright.quant.errors import InputError

LONGER = {"train": "longer"}


@pytest.fixture
def searched(synthetic: ModuleType, tmp_path: Path) -> SearchOutcome:
    outcome: SearchOutcome = synthetic.run(tmp_path, trials=12)
    return outcome


def again(candidate: Candidate, setup: Setup) -> Result:
    """From scratch everything scores 0.01 less; depth 4 fails."""
    result: Result = sys.modules["nas_synthetic"].evaluate(candidate, setup)
    if candidate.values["depth"] == 4:
        return result.model_copy(update={"outcome": Outcome.FAILED, "figures": {}, "reason": "train: nan"})
    accuracy = result.figures["accuracy"] - 0.01
    figures = {"accuracy": accuracy, "accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.1, "macs": 1.0}
    return result.model_copy(update={"figures": figures})


def train(searched: SearchOutcome, folder: Path, evaluate: Any = again, training: Any = LONGER) -> dict[str, Result]:
    synthetic = sys.modules["nas_synthetic"]
    workload = synthetic.Workload(fingerprint=training)
    return trained_from_scratch(searched.front, synthetic.Space(), [workload], folder, InProcess(evaluate))


def log(folder: Path) -> list[str]:
    return [line for path in folder.glob("from-scratch-*/*.log") for line in path.read_text().split()]


def test_each_of_the_front_is_trained_once_and_looked_up_from_then_on(searched: SearchOutcome, tmp_path: Path) -> None:
    front = [each.key for each in searched.front]
    assert len(front) >= 3
    found = train(searched, tmp_path)
    assert list(found) == front == log(tmp_path)
    assert train(searched, tmp_path) == found
    assert log(tmp_path) == front
    train(searched, tmp_path, training={"train": "shorter"})
    assert len(log(tmp_path)) == 2 * len(front)


def test_an_interrupted_training_goes_on_where_it_was(searched: SearchOutcome, tmp_path: Path) -> None:
    last = searched.front[-1].key

    def interrupted(candidate: Candidate, setup: Setup) -> Result:
        if candidate.key == last:
            raise KeyboardInterrupt
        return again(candidate, setup)

    with pytest.raises(KeyboardInterrupt):
        train(searched, tmp_path, interrupted)
    assert log(tmp_path) == [each.key for each in searched.front[:-1]]
    train(searched, tmp_path)
    assert sorted(log(tmp_path)) == sorted(each.key for each in searched.front)


def test_scores_stand_beside_those_of_the_search(searched: SearchOutcome, tmp_path: Path) -> None:
    found = train(searched, tmp_path)
    outcome = with_scores(searched, found)
    before = {each.key: each for each in searched.results}
    assert {each.outcome for each in found.values()} == {Outcome.SCORED, Outcome.FAILED}
    for each in outcome.results:
        new = {name: value for name, value in each.figures.items() if name not in before[each.key].figures}
        if each.key in found and found[each.key].outcome is Outcome.SCORED:
            own = before[each.key].figures["accuracy"] - 0.01
            ends = {"scratch_accuracy_low": own - 0.1, "scratch_accuracy_high": own + 0.1}
            assert new == pytest.approx({"scratch_accuracy": own, **ends})
        else:
            assert new == {}
    assert [each.key for each in outcome.front] == [each.key for each in searched.front]


def test_a_full_disk_is_one_message(searched: SearchOutcome, tmp_path: Path) -> None:
    def full(candidate: Candidate, setup: Setup) -> Result:
        raise OSError(28, "No space left on device", str(setup.results))

    with pytest.raises(InputError, match=r"results: cannot be written \(No space left on device\); what was told is"):
        train(searched, tmp_path, full)


def scored(accuracies: list[float], scratch: list[float]) -> SearchOutcome:
    """A front of these: who is better needs more."""
    results = [
        Result(key=f"{place}", values={"width": place}, outcome=Outcome.SCORED, stage="quantize", figures=figures)
        for place, (one, other) in enumerate(zip(accuracies, scratch, strict=True))
        if (figures := {"accuracy": one, "scratch_accuracy": other, "macs": one})
    ]
    trials = tuple(Told(number=number, result=each, repeated=False) for number, each in enumerate(results))
    return SearchOutcome(trials=trials, objectives=("accuracy", "macs"), maximize=(True, False))


def test_the_order_of_the_front_is_compared_with_the_one_from_scratch() -> None:
    rising = [float(place) for place in range(9)]
    found = ranks(scored(rising, [0, 2, 1, 3, 4, 5, 6, 7, 8]))
    assert found is not None
    assert (found.n, found.tau) == (9, pytest.approx(1 - 2 / 36))  # one of 36 pairs the other way round
    assert found.low < found.tau <= found.high
    assert ranks(scored(rising[:7], rising[:7])) is None
    assert ranks(scored(rising, [1.0] * 9)) is None
