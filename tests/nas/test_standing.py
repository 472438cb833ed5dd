import math
import random

import pytest

from bitwright.nas import pareto
from bitwright.nas.result import Outcome, Result
from bitwright.nas.standing import Standing, Standings, best_case, early_figures, rival

OBJECTIVES, MAXIMIZE = ("accuracy", "latency_ms"), (True, False)


def scored(key: int, **figures: float) -> Result:
    return Result(key=str(key), values={}, outcome=Outcome.SCORED, stage="measure", figures=figures)


def test_the_front_is_that_of_all_results() -> None:
    luck = random.Random(0)
    points = [(luck.randrange(12) / 12, float(luck.randrange(12))) for _ in range(80)]
    standings = Standings(OBJECTIVES, MAXIMIZE)
    for number, (accuracy, latency) in enumerate(points):
        standings.add(scored(number, accuracy=accuracy, latency_ms=latency))
    losses = [(-accuracy, latency) for accuracy, latency in points]
    assert set(standings.now.front) == {losses[index] for index in pareto.non_dominated(losses)}


@pytest.mark.parametrize("up", [True, False])
def test_the_gain_bounds_the_next_one_in_95_of_100_cases(up: bool) -> None:
    luck, held, rounds = random.Random(1), 0, 400
    for _ in range(rounds):
        standings = Standings(("accuracy",), (up,))
        for number in range(39):
            inherited = luck.random()
            standings.add(scored(number, accuracy=inherited + luck.gauss(0.1, 0.05), inherited_accuracy=inherited))
        gain = standings.now.gains["inherited_accuracy"]
        following = luck.gauss(0.1, 0.05)
        held += (following if up else -following) <= gain
    # exactly 38 of 40 by theory: 0.95 with a standard error of 0.011
    assert held / rounds == pytest.approx(0.95, abs=0.035)


def test_with_few_gains_there_is_no_bound() -> None:
    standings = Standings(OBJECTIVES, MAXIMIZE)
    for number in range(18):
        standings.add(scored(number, accuracy=0.9, latency_ms=1.0, inherited_accuracy=0.8))
    assert standings.now.gains == {}
    standings.add(scored(18, accuracy=0.9, latency_ms=1.0, inherited_accuracy=0.8))
    assert standings.now.gains == {"inherited_accuracy": pytest.approx(0.1)}


def test_the_best_case_takes_the_good_ends() -> None:
    standing = Standing(front=((-0.9, 2.0),), gains={"inherited_accuracy": 0.1})
    figures = {"inherited_accuracy": 0.7, "predicted_ms": 3.0, "predicted_ms_low": 2.5}
    best = best_case(figures, OBJECTIVES, MAXIMIZE, standing)
    assert best == (pytest.approx(-0.8), 2.5)
    assert rival(best, standing) == (-0.9, 2.0)
    assert rival(best_case({**figures, "predicted_ms_low": 1.5}, OBJECTIVES, MAXIMIZE, standing), standing) is None
    assert best_case(figures, OBJECTIVES, MAXIMIZE, standing, first_share=0.2)[1] == pytest.approx(0.5)
    assert best_case({"accuracy": 0.95}, OBJECTIVES, MAXIMIZE, standing) == (-0.95, -math.inf)
    assert rival(best_case({"predicted_ms_low": 9.0}, OBJECTIVES, MAXIMIZE, standing), standing) is None


def test_the_latest_accuracy_of_a_training_bounds_it() -> None:
    standing = Standing(gains={"inherited_accuracy": 0.3, "accuracy_after_0.5": 0.1})
    figures = {"inherited_accuracy": 0.6, "accuracy_after_0.25": 0.7, "accuracy_after_0.5": 0.75}
    assert best_case(figures, OBJECTIVES, MAXIMIZE, standing)[0] == pytest.approx(-0.85)
    del figures["accuracy_after_0.5"]  # of the rung before it nothing is known yet
    assert best_case(figures, OBJECTIVES, MAXIMIZE, standing)[0] == pytest.approx(-0.9)
    assert early_figures({"accuracy_after_0.5": 1.0, "accuracy_after_0.125": 1.0, "inherited_accuracy": 1.0}) == [
        "inherited_accuracy", "accuracy_after_0.125", "accuracy_after_0.5",
    ]  # fmt: skip
