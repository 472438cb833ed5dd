"""What people and machines do to a search: one message each, and nothing that was told is lost."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest

from bitwright.nas import fork
from bitwright.nas import result as result_files
from bitwright.nas.fork import set_aside
from bitwright.nas.result import Outcome, Result, Violation
from bitwright.nas.search_outcome import nearest_to_feasible
from bitwright.nas.storage import DatabaseLost, StudyPlace
from bitwright.nas.study import opened
from bitwright.quant.errors import InputError


def told(folder: Path) -> list[str]:
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")
    return [each.user_attrs["candidate"]["key"] for each in study.trials if each.state.is_finished()]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: a write there fails as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_under_the_study_ends_the_search_and_nothing_is_lost(synthetic: ModuleType, tmp_path: Path) -> None:
    first = synthetic.run(tmp_path / "full", trials=5)
    message = rf"^{tmp_path / 'full'}/study\.db: cannot be written \(.*\); what was told is safe; make room, then start"
    with largest_file(100_000), pytest.raises(InputError, match=message):
        synthetic.run(tmp_path / "full", trials=20)
    assert told(tmp_path / "full")[:5] == [each.key for each in first.results]
    assert synthetic.run(tmp_path / "full").results == synthetic.run(tmp_path / "alone").results


def test_a_full_disk_under_the_results_ends_the_search_and_nothing_is_lost(
    synthetic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.run(tmp_path / "full", trials=5)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(result_files.os, "fsync", full)
        with pytest.raises(InputError) as found:
            synthetic.run(tmp_path / "full", trials=20)
    assert str(found.value) == (
        f"{tmp_path / 'full'}: cannot be written (No space left on device); what was told is safe; make room, then "
        "start the search again"
    )
    assert list((tmp_path / "full" / "results").glob(".*")) == []
    assert synthetic.run(tmp_path / "full").results == synthetic.run(tmp_path / "alone").results


def test_two_searches_of_one_name_are_told_apart_by_their_folders(synthetic: ModuleType, tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'shared.db'}")
    place = StudyPlace(storage=storage, name="same", shown="postgresql://host/team, study 'same'")
    common: dict[str, Any] = {"names": ("accuracy",), "maximize": (True,), "definition": {"space": {}}}
    one, other = tmp_path / "one", tmp_path / "other"
    with opened(place, **common, folder=one) as study:
        study.tell(study.ask(), 1.0)
    with pytest.raises(InputError) as found, opened(place, **common, folder=other):
        pass
    assert str(found.value) == (
        f"postgresql://host/team, study 'same': the results of this study are in {one}, and this search is in {other}; "
        "give this search another name, or go on in that folder"
    )
    (other / "results").mkdir(parents=True)  # the folder was moved, with all that is in it
    with opened(place, **common, folder=other) as study:
        assert len(study.trials) == 1


def test_a_changed_search_begins_anew_and_keeps_the_old_one_whole(synthetic: ModuleType, tmp_path: Path) -> None:
    folder, smaller = tmp_path / "search", synthetic.Space(depths=(1, 2))
    old = synthetic.run(folder, trials=4)
    with pytest.raises(InputError, match=r"or keep this study aside and begin anew with --fork$"):
        synthetic.run(folder, trials=4, space=smaller)
    aside = set_aside(folder, on_wait=print)
    assert aside == f"{tmp_path}/search.before-1"
    new = synthetic.run(folder, trials=4, space=smaller)
    assert {each.values["depth"] for each in new.results} <= {1, 2}
    assert synthetic.run(Path(aside), trials=4).results == old.results
    assert set_aside(folder, on_wait=print) == f"{tmp_path}/search.before-2"
    assert set_aside(folder, on_wait=print) is None


def test_no_other_driver_begins_while_a_study_is_set_aside(
    synthetic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, refused = tmp_path / "search", []
    synthetic.run(folder, trials=2)
    move = fork._move

    def meanwhile(moved: Path) -> Path:
        with pytest.raises(InputError) as found:
            synthetic.run(folder, trials=2)
        refused.append(str(found.value))
        return move(moved)

    monkeypatch.setattr(fork, "_move", meanwhile)
    assert set_aside(folder, on_wait=print) == f"{tmp_path}/search.before-1"
    assert refused == [f"{folder}: process {os.getpid()} drives this search; wait for it, or name another folder"]


def test_a_database_that_is_lost_while_a_study_is_set_aside_is_one_message(
    synthetic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def lost(*_: object, **__: object) -> Iterator[StudyPlace]:
        raise DatabaseLost
        yield

    synthetic.run(tmp_path, trials=2)
    monkeypatch.setattr(fork, "study_place", lost)
    with pytest.raises(InputError) as found:
        set_aside(tmp_path, database="postgresql://host/team", name="roads", on_wait=print)
    assert str(found.value) == (
        "search.storage = 'postgresql://host/team' went away while study 'roads' was set aside; nothing is lost, give "
        "the same command again"
    )
    assert len(told(tmp_path)) == 2


def test_the_nearest_to_feasible_breaks_the_fewest_constraints_by_the_least() -> None:
    def refused(key: str, *amounts: float) -> Result:
        broken = tuple(Violation(constraint=f"c{i}", amount=each, reason="") for i, each in enumerate(amounts))
        return Result(key=key, values={}, outcome=Outcome.INFEASIBLE, stage="lint", violations=broken)

    results = [refused("far", 3.0), refused("two", 0.1, 0.1), refused("near", 0.5)]
    nearest = nearest_to_feasible(results)
    assert nearest is not None and nearest.key == "near"
    assert nearest_to_feasible([]) is None
