import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest

from bitwright.nas.result import Outcome
from bitwright.nas.search import search
from bitwright.nas.settings import SearchSettings
from bitwright.nas.space import Candidate
from bitwright.nas.workers import InProcess
from bitwright.quant.errors import InputError


def evaluated(synthetic: ModuleType, folder: Path) -> list[str]:
    log = folder / synthetic.LOG
    return log.read_text().split() if log.exists() else []


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")


def test_it_tries_as_many_different_candidates_as_asked(synthetic: ModuleType, tmp_path: Path) -> None:
    outcome = synthetic.run(tmp_path, trials=20)
    assert len(outcome.results) == 20
    assert Counter(evaluated(synthetic, tmp_path)) == Counter({each.key: 1 for each in outcome.results})


def test_repeated_candidates_are_looked_up(synthetic: ModuleType, tmp_path: Path) -> None:
    space = synthetic.Space(widths=(1, 2), depths=(1, 2), formats=("int8", "float32"))
    outcome = synthetic.run(tmp_path, trials=100, space=space)
    assert any(each.repeated for each in outcome.trials)
    assert len(outcome.results) == 8  # the whole space, and then it ends
    assert max(Counter(evaluated(synthetic, tmp_path)).values()) == 1


def test_the_front_of_an_exhausted_space_is_the_true_one(synthetic: ModuleType, tmp_path: Path) -> None:
    space = synthetic.Space(widths=(1, 2, 3), depths=(1, 2), formats=("int8", "float32"))
    everything = [
        synthetic.result_of(Candidate({"width": w, "depth": d, "format": f}))
        for w, d, f in itertools.product(space.widths, space.depths, space.formats)
    ]
    best = {
        each.key
        for each in everything
        if not any(
            other.figures["accuracy"] >= each.figures["accuracy"]
            and other.figures["macs"] <= each.figures["macs"]
            and other.figures != each.figures
            for other in everything
        )
    }
    assert {each.key for each in synthetic.run(tmp_path, trials=100, space=space).front} == best


def test_infeasible_candidates_are_in_the_study_with_their_reason_and_without_scores(
    synthetic: ModuleType, tmp_path: Path
) -> None:
    outcome = synthetic.run(tmp_path, trials=20)
    dead = {each.key for each in outcome.results if each.outcome is Outcome.INFEASIBLE}
    trials = [each for each in study_of(tmp_path).trials if each.user_attrs["candidate"]["key"] in dead]
    assert trials
    for each in trials:
        assert each.state is optuna.trial.TrialState.PRUNED
        assert each.values is None
        assert each.constraints == {"lint.dtype": 1.0}
        assert each.user_attrs["result"]["violations"][0]["reason"] == "int16 is not permitted"
        assert each.user_attrs["result"]["seconds"] == {}


def test_the_sampler_learns_what_is_infeasible(synthetic: ModuleType, tmp_path: Path) -> None:
    formats = ("int8", "int16", "int4", "int3", "int2")
    space = synthetic.Space(widths=tuple(range(1, 21)), depths=tuple(range(1, 21)), formats=formats)
    outcome = synthetic.run(tmp_path, trials=40, space=space)
    refused = sum(each.outcome is Outcome.INFEASIBLE for each in outcome.results)
    assert refused < 24  # 32 by chance, with a standard deviation of 2.5


def test_results_are_on_the_disk_before_they_are_told(synthetic: ModuleType, tmp_path: Path) -> None:
    outcome = synthetic.run(tmp_path, trials=5)
    for each in outcome.results:
        assert json.loads((tmp_path / "results" / f"{each.key}.json").read_text())["outcome"] == each.outcome.value


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_search_in_two_parts_is_the_search_in_one(synthetic: ModuleType, tmp_path: Path, sampler: str) -> None:
    first = synthetic.run(tmp_path / "parts", trials=6, sampler=sampler)
    both = synthetic.run(tmp_path / "parts", trials=14, sampler=sampler)
    at_once = synthetic.run(tmp_path / "one", trials=14, sampler=sampler)
    assert both.results[:6] == first.results
    assert both.results == at_once.results


def test_the_seed_decides(synthetic: ModuleType, tmp_path: Path) -> None:
    one, other = (synthetic.run(tmp_path / str(seed), trials=4, sampler="random", seed=seed) for seed in (1, 2))
    assert one.results != other.results


def kill_when_evaluating(synthetic: ModuleType, folder: Path, *, evaluations: int, trials: int, sampler: str) -> None:
    arguments = [sys.executable, synthetic.__file__, str(folder), str(trials), "0.15", sampler]
    driver = subprocess.Popen(arguments, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 30
        while len(evaluated(synthetic, folder)) < evaluations:
            assert driver.poll() is None, driver.communicate()[1].decode()
            assert time.monotonic() < deadline, "the driver does not come forward"
            time.sleep(0.005)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()


def test_a_killed_driver_loses_nothing_and_repeats_at_most_what_was_running(
    synthetic: ModuleType, tmp_path: Path
) -> None:
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    running = set()
    for evaluations in (3, 8):
        kill_when_evaluating(synthetic, killed, evaluations=evaluations, trials=14, sampler="tpe")
        running.add(evaluated(synthetic, killed)[-1])
    outcome = synthetic.run(killed, trials=14)
    assert outcome.results == synthetic.run(undisturbed, trials=14).results
    counts = Counter(evaluated(synthetic, killed))
    assert {key for key, count in counts.items() if count > 1} <= running
    assert max(counts.values()) <= 2
    states = Counter(each.state for each in study_of(killed).trials)
    assert states[optuna.trial.TrialState.RUNNING] == states[optuna.trial.TrialState.WAITING] == 0


def leave_running(synthetic: ModuleType, folder: Path, params: dict[str, Any], *, times: int = 1) -> str:
    """The state in which a driver leaves a study that dies while it evaluates `params`, so many times."""

    class Killed(BaseException):
        pass

    def die(candidate: Candidate, setup: Any) -> Any:
        if candidate.values == params:
            raise Killed
        return synthetic.result_of(candidate)

    keys = {name: value if name == "format" else synthetic.Space().parameters[i].choices.index(value)
            for i, (name, value) in enumerate(params.items())}  # fmt: skip
    for _ in range(times):
        if not study_exists(folder):
            synthetic.run(folder, trials=3)
            study_of(folder).enqueue_trial(keys)
        with pytest.raises(Killed):
            search(synthetic.Space(), synthetic.Workload(), synthetic.settings(10), folder, workers=InProcess(die))
    return Candidate(params).key


def study_exists(folder: Path) -> bool:
    return (folder / "study.db").exists()


PARAMS = {"width": 5, "depth": 4, "format": "int8"}


def test_what_was_running_is_evaluated_once_more(synthetic: ModuleType, tmp_path: Path) -> None:
    key = leave_running(synthetic, tmp_path, PARAMS)
    outcome = synthetic.run(tmp_path, trials=10)
    assert outcome.recovered == 1
    assert evaluated(synthetic, tmp_path).count(key) == 1
    assert [each.outcome for each in outcome.results if each.key == key] == [Outcome.SCORED]


def test_what_was_interrupted_twice_is_given_up_with_its_reason(synthetic: ModuleType, tmp_path: Path) -> None:
    key = leave_running(synthetic, tmp_path, PARAMS, times=2)
    outcome = synthetic.run(tmp_path, trials=10)
    assert evaluated(synthetic, tmp_path).count(key) == 0
    (given_up,) = [each for each in outcome.results if each.key == key]
    assert given_up.outcome is Outcome.FAILED
    assert given_up.reason == "its evaluation was interrupted 2 times"


def test_a_result_that_was_written_but_not_told_is_told(synthetic: ModuleType, tmp_path: Path) -> None:
    key = leave_running(synthetic, tmp_path, PARAMS)
    written = synthetic.result_of(Candidate(PARAMS))
    (tmp_path / "results" / f"{key}.json").write_text(written.model_dump_json())
    outcome = synthetic.run(tmp_path, trials=10)
    assert key not in evaluated(synthetic, tmp_path)
    assert written in outcome.results
    (trial,) = [each for each in study_of(tmp_path).trials if each.user_attrs["candidate"]["key"] == key]
    assert trial.values == [written.figures["accuracy"], written.figures["macs"]]


def test_a_second_driver_is_refused(synthetic: ModuleType, tmp_path: Path) -> None:
    arguments = [sys.executable, synthetic.__file__, str(tmp_path), "50", "30", "tpe"]
    driver = subprocess.Popen(arguments)
    try:
        while not evaluated(synthetic, tmp_path):
            time.sleep(0.01)
        with pytest.raises(InputError, match=rf"process {driver.pid} drives this search; wait for it, or name another"):
            synthetic.run(tmp_path)
    finally:
        driver.kill()
        driver.wait()


def test_a_changed_space_is_refused_with_the_difference(synthetic: ModuleType, tmp_path: Path) -> None:
    synthetic.run(tmp_path, trials=3)
    with pytest.raises(
        InputError, match=r"begun with something else: space\.depth was \[1, 2, 3, 4\] and is \[1, 2\]\."
    ):
        synthetic.run(tmp_path, trials=3, space=synthetic.Space(depths=(1, 2)))
    with pytest.raises(InputError, match=r'objectives was \["accuracy", "macs"\] and is \["accuracy"\]'):
        synthetic.run(tmp_path, trials=3, objectives=("accuracy",))


def test_an_infeasible_space_says_which_constraint_refuses_how_many(synthetic: ModuleType, tmp_path: Path) -> None:
    space = synthetic.Space(widths=(1, 2), depths=(1, 2), formats=("int16",))
    message = (
        r"none of 4 candidates is feasible on target 'x86-vnni'\n"
        r"  lint\.dtype refuses 4, for example: int16 is not permitted\n"
        r"  nearest to feasible is width \d, depth \d, format int16: int16 is not permitted$"
    )
    with pytest.raises(InputError, match=message):
        synthetic.run(tmp_path, space=space)


def test_a_candidate_that_fails_is_kept_with_its_reason(synthetic: ModuleType, tmp_path: Path) -> None:
    space = synthetic.Space(widths=(1, 2), depths=(1, 2), formats=("int8", "nan"))
    outcome = synthetic.run(tmp_path, space=space)
    failed = [each for each in outcome.results if each.outcome is Outcome.FAILED]
    assert failed
    told = [each.user_attrs["result"] for each in study_of(tmp_path).trials]
    assert {each["reason"] for each in told if each["outcome"] == "failed"} == {"quantize: accuracy is nan"}


def test_when_everything_fails_the_search_stops(synthetic: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"5 candidates in a row failed; the last one \(width .*accuracy is nan"):
        synthetic.run(tmp_path, space=synthetic.Space(formats=("nan",)))


def test_latency_needs_a_runtime(synthetic: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing on this machine runs .*'x86-vnni'; choose among accuracy, pre"):
        synthetic.run(tmp_path, objectives=("accuracy", "latency_ms"))
    assert not study_exists(tmp_path)


def test_a_lost_result_is_named(synthetic: ModuleType, tmp_path: Path) -> None:
    outcome = synthetic.run(tmp_path, trials=3)
    key = outcome.results[0].key
    (tmp_path / "results" / f"{key}.json").unlink()
    with pytest.raises(InputError, match=f"the result of candidate {key} is gone"):
        synthetic.run(tmp_path, trials=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "tpo"}, r"unknown sampler 'tpo'; there are: .*nsga2.*random, tpe \(did you mean 'tpe'\?\)"),
        ({"objectives": ()}, r"search objectives = \[\]; give at least one"),
        ({"objectives": ("latency",)}, r"unknown search figure 'latency'; .*did you mean 'latency_ms'\?"),
        ({"objectives": ("predicted_ms",)}, r"'predicted_ms' needs search.table; make one: bitwright measure kernels"),
        ({"rungs": (0.5, 0.25)}, r"search rungs = \[0.5, 0.25\]; give shares of a training between 0 and 1, ascending"),
        (
            {"rungs": (0.5,), "give_up": False},
            r"search rungs = \[0.5\] say when a candidate is given up .* needs give_",
        ),
        ({"rungs": (0.5,), "objectives": ("macs",)}, r"needs give_up: true and accuracy among the objectives"),
        ({"limits": {"mac": 1.0}}, r"unknown search figure 'mac'; .*did you mean 'macs'\?"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchSettings(**{"trials": 1, **changes})
