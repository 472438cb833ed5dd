"""What every sampler keeps, whatever it proposes; a new one is tested by being registered."""

import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from bitwright.experiments.benchmarks.tabular_space import OBJECTIVES, Table
from bitwright.nas.result import Outcome, Result
from bitwright.nas.sampling.known import Known
from bitwright.nas.sampling.registry import INFORMED, OPTUNA_SAMPLERS, SAMPLERS, check_sampler, make_sampler
from bitwright.nas.settings import SearchSettings
from bitwright.nas.space import Candidate, sample
from bitwright.quant.errors import InputError, MissingExtraError

NewStudy = Callable[[], optuna.Study]
Search = Callable[..., list[Candidate]]
TRIALS = 14

# CMA-ES takes one objective and a package of its own: it has its tests below. Optuna's GP takes a second a trial.
of_two_objectives = pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=[pytest.mark.slow] if each == "gp" else [])
        for each in SAMPLERS
        if each not in OPTUNA_SAMPLERS or not OPTUNA_SAMPLERS[each].one_objective
    ],
)


@of_two_objectives
def test_no_candidate_is_proposed_twice_or_although_it_is_refused(
    table: Table, search: Search, new_study: NewStudy, name: str
) -> None:
    assert table.infeasible > 0.3
    proposed = search(new_study(), name, TRIALS)
    assert len({each.key for each in proposed}) == TRIALS
    assert all(table.evaluate(each).outcome is Outcome.SCORED for each in proposed)


@of_two_objectives
def test_proposals_stay_in_the_space(table: Table, search: Search, new_study: NewStudy, name: str) -> None:
    choices = {each.name: each.choices for each in table.space.parameters}
    for each in search(new_study(), name, TRIALS):
        assert each.values.keys() == choices.keys()
        assert all(value in choices[parameter] for parameter, value in each.values.items())
        assert table.space.canonical(each.values) == each.values


@of_two_objectives
def test_a_search_that_was_interrupted_goes_on_as_it_would_have(search: Search, new_study: NewStudy, name: str) -> None:
    undisturbed = search(new_study(), name, TRIALS)
    study = new_study()
    # With nothing remembered: `search` makes a new `Known` for each part.
    assert search(study, name, 5) + search(study, name, TRIALS - 5) == undisturbed


@of_two_objectives
def test_another_seed_proposes_others(search: Search, new_study: NewStudy, name: str) -> None:
    one, other = (search(new_study(), name, TRIALS, seed=seed) for seed in (1, 2))
    assert one != other


@of_two_objectives
def test_batches_hold_different_candidates_and_repeat(search: Search, new_study: NewStudy, name: str) -> None:
    one, other = (search(new_study(), name, 12, batch=4) for _ in range(2))
    assert one == other
    assert len({each.key for each in one}) == 12


def test_what_a_dead_driver_left_running_is_proposed_again_alike(
    table: Table, search: Search, new_study: NewStudy
) -> None:
    """The first of a batch is asked for again while later ones are there already, with a sampler of its number."""
    study = new_study()
    search(study, INFORMED, 10)

    def sampler(told: int) -> optuna.samplers.BaseSampler:
        known = Known(space=table.space, objectives=OBJECTIVES, screen=table.screen, pool=64)
        return make_sampler(INFORMED, seed=3, told=told, known=known)

    asked = []
    for _ in range(3):
        study.sampler = sampler(len(study.trials))
        asked.append((study.ask(), sample(table.space, optuna.Trial(study, study.trials[-1]._trial_id))))
    for trial, proposed in asked:
        again = sampler(trial.number)
        params = again.sample_relative(study, study.trials[trial.number], {})
        grid = again.known.grid  # type: ignore[attr-defined]
        assert grid.candidate(grid.places(params)) == proposed


@pytest.mark.parametrize("name", ["informed", "random", "tpe"])
def test_an_exhausted_space_ends_in_repetitions(search: Search, new_study: NewStudy, table: Table, name: str) -> None:
    feasible = {key for key, each in table.results.items() if each.outcome is Outcome.SCORED}
    proposed = search(new_study(), name, len(feasible) + 3)
    assert {each.key for each in proposed[: len(feasible)]} == feasible
    assert all(each.key in feasible for each in proposed[len(feasible) :])


@pytest.mark.parametrize("name", ["informed", "random"])
def test_where_all_is_refused_different_ones_are_proposed_for_the_message(
    table: Table, new_study: NewStudy, name: str
) -> None:
    dead = Result(key="", values={}, outcome=Outcome.INFEASIBLE, stage="lint")
    known = Known(space=table.space, objectives=OBJECTIVES, screen=lambda candidate: dead, pool=64)
    study, keys = new_study(), set()
    for told in range(6):
        study.sampler = make_sampler(name, seed=0, told=told, known=known)
        trial = study.ask()
        keys.add(sample(table.space, trial).key)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert len(keys) > 3


@pytest.mark.parametrize("name", ["informed", "tpe"])
def test_equal_networks_are_proposed_once(table: Table, new_study: NewStudy, search: Search, name: str) -> None:
    """The first decision changes nothing: a third or a quarter of the candidates are different networks."""
    first = table.space.parameters[0].name

    def screen(candidate: Candidate) -> Result:
        rest = str([value for key, value in candidate.values.items() if key != first])
        return table.screen(candidate).model_copy(update={"network": rest})

    known = Known(space=table.space, objectives=OBJECTIVES, screen=screen, pool=64)
    networks = [screen(each).network for each in search(new_study(), name, 12, known=known)]
    assert len(set(networks)) == 12


@pytest.mark.parametrize("name", ["informed", "nsga2"])
def test_the_front_of_an_earlier_study_is_tried_first(
    table: Table, new_study: NewStudy, search: Search, name: str
) -> None:
    first = search(new_study(), "random", 20, seed=9)
    earlier = [table.evaluate(each) for each in first]
    known = Known(space=table.space, objectives=OBJECTIVES, screen=table.screen, earlier=earlier, pool=64)
    front = {
        each.key
        for each in earlier
        if not any(
            o.figures["accuracy"] >= each.figures["accuracy"]
            and o.figures["predicted_ms"] <= each.figures["predicted_ms"]
            and o.figures != each.figures
            for o in earlier
        )
    }
    proposed = search(new_study(), name, len(front) + 8, known=known)
    assert {each.key for each in proposed[: len(front)]} == front


def test_what_only_an_evaluation_refuses_is_avoided_later(table: Table, new_study: NewStudy) -> None:
    """A measured limit that no screen knows: three of four candidates break it."""
    name = table.space.parameters[0].name
    known = Known(space=table.space, objectives=OBJECTIVES, screen=table.screen, pool=256)
    study, refused = new_study(), []
    for told in range(40):
        study.sampler = make_sampler("informed", seed=0, told=told, known=known)
        trial = study.ask()
        candidate = sample(table.space, trial)
        refused.append(candidate.values[name] in table.space.parameters[0].choices[1:])
        if refused[-1]:
            trial.set_constraint("latency_ms", 0.5)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            figures = table.evaluate(candidate).figures
            study.tell(trial, [figures[each] for each in OBJECTIVES])
    assert sum(refused) < 20  # 30 by chance, with a standard deviation of 2.7


def test_without_what_is_known_the_samplers_are_optunas_own(new_study: NewStudy) -> None:
    for name in OPTUNA_SAMPLERS:
        if name != "cmaes":
            assert type(make_sampler(name, seed=0, told=0)).__module__.startswith("optuna.")
    with pytest.raises(InputError, match="search sampler 'informed' proposes from what is known of candidates"):
        make_sampler(INFORMED, seed=0, told=0)


def test_names_are_checked() -> None:
    with pytest.raises(InputError, match=r"unknown sampler 'tpee'; there are: .*tpe \(did you mean 'tpe'\?\)"):
        check_sampler("tpee")
    with pytest.raises(InputError, match="sampler = 'cmaes' takes one objective, and there are 2; name another"):
        check_sampler("cmaes", objectives=2)
    for name in ("gp", "informed", "nsga3"):
        SearchSettings(trials=1, sampler=name, objectives=("accuracy", "macs"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def without_cmaes(name: str, *rest: Any) -> Any:
        return None if name == "cmaes" else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without_cmaes)
    with pytest.raises(MissingExtraError, match=r"search sampler 'cmaes' needs: pip install 'bitwright\[cmaes\]'"):
        check_sampler("cmaes")


@pytest.mark.parametrize("name", ["cmaes", "informed", "tpe", "nsga3"])
def test_one_objective_is_enough(table: Table, name: str) -> None:
    if name == "cmaes":
        pytest.importorskip("cmaes")
    known = Known(space=table.space, objectives=("accuracy",), screen=table.screen, pool=64)
    study, keys = optuna.create_study(direction="maximize"), set()
    for told in range(12):
        study.sampler = make_sampler(name, seed=0, told=told, known=known)
        trial = study.ask()
        candidate = sample(table.space, trial)
        study.tell(trial, table.evaluate(candidate).figures["accuracy"])
        keys.add(candidate.key)
    assert len(keys) == 12


def test_ours_finds_the_front_of_a_small_table_sooner_than_chance(
    table: Table, search: Search, new_study: NewStudy
) -> None:
    found = {
        name: table.hypervolume(table.evaluate(each) for each in search(new_study(), name, 25))
        for name in ("informed", "random")
    }
    assert found["informed"] > found["random"]


def test_every_combination_of_choices_has_one_place_and_one_candidate(table: Table) -> None:
    grid = Known(space=table.space, objectives=OBJECTIVES).grid
    everything = {grid.candidate(places).key for places in grid.everything()}
    by_hand = itertools.product(*(each.choices for each in table.space.parameters))
    names = [each.name for each in table.space.parameters]
    assert everything == {Candidate(dict(zip(names, values, strict=True))).key for values in by_hand}
    for places in grid.everything():
        assert grid.places(grid.params(places)) == places == grid.of_values(grid.candidate(places).values)
