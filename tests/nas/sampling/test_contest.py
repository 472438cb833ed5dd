"""The benchmarks' tables, peers and statistics."""

import itertools

import numpy as np
import optuna
import pytest

from bitwright.experiments.benchmarks.regularised_evolution import RegularisedEvolution
from bitwright.experiments.benchmarks.rows.search_hypervolume import holm
from bitwright.experiments.benchmarks.sampler_contest import Contestant, regret, search_table
from bitwright.experiments.benchmarks.tabular_space import MAXIMIZE, Table
from bitwright.nas.pareto import hypervolume
from bitwright.nas.result import Outcome
from bitwright.nas.space import sample


def test_everything_covers_the_whole_table(table: Table) -> None:
    scored = [each for each in table.results.values() if each.outcome is Outcome.SCORED]
    assert table.hypervolume(table.results.values()) == pytest.approx(1.0)
    assert table.hypervolume([]) == 0
    assert 0 < table.hypervolume(scored[:3]) < 1


def test_a_screen_keeps_the_accuracy_to_itself(table: Table) -> None:
    for each in map(table.screen, map(_candidate, table.results.values())):
        assert "accuracy" not in each.figures
        assert ("predicted_ms" in each.figures) or each.outcome is Outcome.INFEASIBLE


def _candidate(result: object) -> object:
    from bitwright.nas.space import Candidate

    return Candidate(result.values)  # type: ignore[attr-defined]


def test_hypervolume_is_optunas() -> None:
    from optuna._hypervolume import compute_hypervolume

    rng = np.random.default_rng(0)
    for dimensions, count in itertools.product((2, 3), (1, 7, 40)):
        points, reference = rng.uniform(0, 1, (count, dimensions)), np.ones(dimensions)
        assert hypervolume(points.tolist(), reference.tolist()) == pytest.approx(compute_hypervolume(points, reference))


@pytest.mark.parametrize("contestant", [Contestant(name="informed"), Contestant(name="evolution", equipped=2)])
def test_a_search_repeats(table: Table, contestant: Contestant) -> None:
    one, other = (search_table(table, contestant, 5, 30)[0] for _ in range(2))
    assert one == other
    assert len(set(one)) == 30
    assert regret(table, [table.results[key] for key in one], 30) < regret(table, [table.results[one[0]]], 1)


def test_evolution_mutates_one_decision_of_the_youngest(table: Table) -> None:
    study = optuna.create_study(directions=["maximize" if up else "minimize" for up in MAXIMIZE])
    values: list[dict[str, object]] = []
    for number in range(60):
        study.sampler = RegularisedEvolution(table.space, seed=number)
        trial = study.ask()
        candidate = sample(table.space, trial)
        if number >= 24:
            youngest = values[-24:]
            assert any(sum(candidate.values[k] != old[k] for k in old) == 1 for old in youngest)
        values.append(dict(candidate.values))
        study.tell(trial, [float(number), 1.0])


def test_holms_procedure_on_the_example_of_its_textbooks() -> None:
    # p = 0.01, 0.04, 0.03, 0.005 at 0.05: 0.005 < 0.0125 and 0.01 < 0.0167, then 0.03 > 0.025 ends it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([0.2]) == [False]
