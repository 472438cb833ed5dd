"""A search that begins with what an earlier study of its space has found."""

from pathlib import Path
from types import ModuleType

import pytest

from bitwright.nas.earlier import earlier_results
from bitwright.nas.result import Outcome
from bitwright.nas.search import search
from bitwright.nas.search_outcome import SearchOutcome
from bitwright.nas.workers import InProcess
from bitwright.quant.errors import InputError

OBJECTIVES = ("accuracy", "macs")


def begun_with(synthetic: ModuleType, earlier: Path, folder: Path, *, sampler: str, trials: int) -> SearchOutcome:
    results = earlier_results([earlier], synthetic.Space(), OBJECTIVES)
    settings, workers = synthetic.settings(trials, sampler=sampler), InProcess(synthetic.evaluate)
    found: SearchOutcome = search(
        synthetic.Space(), synthetic.Workload(), settings, folder, earlier=results, workers=workers
    )
    return found


@pytest.mark.parametrize("sampler", ["tpe", "informed"])
def test_the_front_of_the_earlier_study_is_tried_first(
    synthetic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.setattr("bitwright.nas.search.screen", lambda candidate, setup: synthetic.result_of(candidate))
    first = synthetic.run(tmp_path / "first", trials=30)
    again = begun_with(synthetic, tmp_path / "first", tmp_path / "second", sampler=sampler, trials=len(first.front) + 2)
    tried = [each.result.key for each in again.trials]
    assert set(tried[: len(first.front)]) == {each.key for each in first.front}
    assert len(set(tried)) == len(first.front) + 2


def test_earlier_results_are_evaluated_again(synthetic: ModuleType, tmp_path: Path) -> None:
    first = synthetic.run(tmp_path / "first", trials=12)
    begun_with(synthetic, tmp_path / "first", tmp_path / "second", sampler="tpe", trials=len(first.front))
    evaluated = (tmp_path / "second" / synthetic.LOG).read_text().split()
    assert sorted(evaluated) == sorted(each.key for each in first.front)


def test_a_run_s_folder_stands_for_the_studies_in_it(synthetic: ModuleType, tmp_path: Path) -> None:
    for name in ("search-aaaaaaaa", "search-bbbbbbbb"):
        synthetic.run(tmp_path / "run" / name, trials=8, seed=len(name), sampler="random")
    found = earlier_results([tmp_path / "run"], synthetic.Space(), OBJECTIVES)
    alone = [earlier_results([each], synthetic.Space(), OBJECTIVES) for each in sorted((tmp_path / "run").iterdir())]
    assert found == (*alone[0], *alone[1])
    assert all(each.outcome is Outcome.SCORED for each in found)


def test_of_another_space_only_what_both_have_counts(synthetic: ModuleType, tmp_path: Path) -> None:
    synthetic.run(tmp_path, trials=20)
    narrow = synthetic.Space(widths=(1, 2))
    found = earlier_results([tmp_path], narrow, OBJECTIVES)
    assert found
    assert {each.values["width"] for each in found} <= {1, 2}
    with pytest.raises(
        InputError, match=r"search\.earlier: .*: none of its \d+ results is a candidate of this space with accuracy and"
    ):
        earlier_results([tmp_path], synthetic.Space(widths=(60, 70)), OBJECTIVES)


def test_other_objectives_are_named(synthetic: ModuleType, tmp_path: Path) -> None:
    synthetic.run(tmp_path, trials=3)
    with pytest.raises(InputError, match="with accuracy and latency_ms; name a study of this space and these obj"):
        earlier_results([tmp_path], synthetic.Space(), ("accuracy", "latency_ms"))


def test_a_folder_without_a_study_is_named(synthetic: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"search\.earlier: .*nowhere: no study is there; name the folder of a run th"):
        earlier_results([tmp_path / "nowhere"], synthetic.Space(), OBJECTIVES)
