"""What is written through equals what Optuna's own storage writes, as Optuna reads both."""

import random
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from bitwright.nas.owned_study import OwnedStorage
from bitwright.nas.sampling.registry import make_sampler


def begun(path: Path) -> tuple[optuna.storages.RDBStorage, optuna.Study]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    study = optuna.create_study(
        study_name="s", storage=storage, directions=["maximize", "minimize"], load_if_exists=True
    )
    return storage, study


def owned(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=OwnedStorage(*begun(path)))


def carry_out(study: optuna.Study, trials: int, *, seed: int) -> None:
    """Every kind of write that a search does, in an order that the seed decides."""
    luck = random.Random(seed)
    for _ in range(trials):
        study.sampler = make_sampler("nsga2", seed=seed, told=len(study.trials))  # it keeps attributes of its own
        trial = study.ask()
        width = trial.suggest_int("width", 0, 5)
        kind = trial.suggest_categorical("kind", ["int8", "float32"])
        trial.set_user_attr("candidate", {"width": width, "kind": kind})
        if isinstance(study._storage, OwnedStorage):
            study._storage.write(trial._trial_id)
        trial.set_user_attr("result", {"reason": "", "figures": {"macs": width / 3}})
        ending = luck.choice(["scores", "infeasible", "failed"])
        if ending == "infeasible":
            trial.set_constraint("lint", 1.0)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif ending == "failed":
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, [width / 3, luck.random()])


def told(path: Path) -> list[dict[str, Any]]:
    without = ("_datetime_start", "datetime_complete", "_trial_id")
    found = optuna.load_study(study_name="s", storage=f"sqlite:///{path}").trials
    assert all((each.datetime_complete is not None) == each.state.is_finished() for each in found)
    return [{key: value for key, value in vars(each).items() if key not in without} for each in found]


@pytest.mark.parametrize("seed", [0, 1])
def test_optuna_reads_back_what_its_own_storage_writes(tmp_path: Path, seed: int) -> None:
    ours, plain = tmp_path / "ours.db", tmp_path / "plain.db"
    carry_out(owned(ours), 6, seed=seed)
    carry_out(owned(ours), 4, seed=seed + 10)  # taken up again
    carry_out(begun(plain)[1], 6, seed=seed)
    carry_out(begun(plain)[1], 4, seed=seed + 10)
    assert told(ours) == told(plain)
    assert [each["_number"] for each in told(ours)] == list(range(10))


def test_what_is_not_kept_is_not_in_the_database(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    trial = owned(path).ask()
    trial.suggest_int("width", 0, 5)
    assert told(path) == []


def test_an_end_that_cannot_be_written_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = owned(tmp_path / "study.db")
    trial = study.ask()

    def full(*args: object, **kwargs: object) -> None:
        raise sqlalchemy.exc.OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr("bitwright.nas.trial_rows.TrialRows.insert", full)
    with pytest.raises(sqlalchemy.exc.OperationalError, match="disk is full"):
        study.tell(trial, [1.0, 2.0])
    assert study.trials[0].state is optuna.trial.TrialState.RUNNING


def test_rare_writes_arrive_too(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = owned(path)
    study.set_user_attr("definition", {"space": [1, 2]})
    study.enqueue_trial({"width": 3})
    trial = study.ask()
    assert trial.suggest_int("width", 0, 5) == 3
    study._storage.set_trial_intermediate_value(trial._trial_id, 1, 0.5)
    study.tell(trial, [1.0, 2.0])
    there = optuna.load_study(study_name="s", storage=f"sqlite:///{path}")
    assert there.user_attrs == {"definition": {"space": [1, 2]}}
    (found,) = there.trials
    assert (found.params, found.intermediate_values, found.values) == ({"width": 3}, {1: 0.5}, [1.0, 2.0])
