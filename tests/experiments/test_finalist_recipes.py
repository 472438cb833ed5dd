import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bitwright.experiments.console import Console
from bitwright.experiments.finalist_recipes import FinalistWriter
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.read_run import result_of
from bitwright.experiments.results import EvaluateResult
from bitwright.experiments.run import run_recipe
from bitwright.experiments.search_result import SearchResult
from bitwright.experiments.search_workload import RecipeWorkload, search_space
from bitwright.experiments.workbench import Workbench
from bitwright.nas.objective import screen
from bitwright.nas.result import Outcome, Result
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate

CHOICES = (
    "target=x86-vnni",
    "model.depth=1",
    "data.size=16",
    "evaluate.samples=60",
    "search.objectives=[accuracy, macs]",
    "search.space={kind: mobile_conv, width: [0.25, 0.5], depth: [1, 2], formats: [int8, float32], stages: 2}",
)


def counted(tmp_path: Path, *overrides: str, **chosen: object) -> tuple[Result, RecipeWorkload]:
    """A candidate as far as the search takes it without training: captured, linted, with its network's hash."""
    workload = RecipeWorkload(load_recipe("digits_search", [*CHOICES, *overrides]))
    space = search_space(workload.search)
    values = {"width": 0.5, "depth": 2, "format_0": "int8", "format_1": "int8", **chosen}
    result = screen(Candidate(space.canonical(values)), Setup(space=space, workload=workload, folder=tmp_path))
    assert result.outcome is Outcome.SCORED, result
    return result.model_copy(update={"figures": {**result.figures, "accuracy": 90.0}}), workload


def writer(workload: RecipeWorkload, tmp_path: Path) -> FinalistWriter:
    return FinalistWriter([workload], search_space(workload.search), tmp_path / "finalists")


@pytest.mark.parametrize(
    ("chosen", "override"),
    [({}, []), ({"format_1": "float32"}, ["blocks.4", "blocks.5", "blocks.6", "blocks.7"])],
    ids=["the scheme's own formats", "half of the blocks in float"],
)
def test_a_finalist_is_the_network_that_was_scored(
    tmp_path: Path, chosen: dict[str, object], override: list[str]
) -> None:
    result, workload = counted(tmp_path, **chosen)
    found = writer(workload, tmp_path).write(result, result.key)
    assert found.problem == ""
    assert found.recipes == (f"finalists/{result.key}.yaml",)
    recipe = load_recipe(str(tmp_path / found.recipes[0]))
    assert [each.module for each in recipe.quantize.overrides] == override
    assert recipe.model.settings == {**workload.recipe.model.settings, "width": 0.5, "depth": 2}
    assert recipe.train == workload.search.train
    # 54 of 60: Wilson's interval, Newcombe 1998, method 3.
    assert recipe.evaluate.gate.bound == pytest.approx(79.85, abs=0.01)


def test_another_network_than_the_scored_one_is_told(tmp_path: Path) -> None:
    result, workload = counted(tmp_path)
    other = result.model_copy(update={"network": "0123456789abcdef"})
    found = writer(workload, tmp_path).write(other, other.key)
    assert found.problem == f"makes network {result.network}, and the search scored 0123456789abcdef"


def test_overrides_of_the_search_that_a_smaller_network_lacks_are_left_out(tmp_path: Path) -> None:
    given = "quantize.overrides=[{module: blocks.7, keep_float: true}, {module: blocks.0, keep_float: true}]"
    result, workload = counted(tmp_path, given, depth=1)
    recipe = writer(workload, tmp_path).recipe(result, workload)
    assert [each.module for each in recipe.quantize.overrides] == ["blocks.0"]


def test_what_the_target_does_not_permit_becomes_no_recipe(tmp_path: Path) -> None:
    result, workload = counted(tmp_path, "search.space.formats=[int8, int16]")
    refused = result.model_copy(update={"values": {**result.values, "format_0": "int16"}})
    found = writer(workload, tmp_path).write(refused, refused.key)
    assert found.recipes == ()
    assert "overrides" in found.problem
    assert "int16" in found.problem
    assert list((tmp_path / "finalists").iterdir()) == []


@pytest.mark.slow
def test_a_finalist_run_from_scratch_reaches_the_score_of_the_search(tmp_path: Path) -> None:
    """In another process and folder; the same bits, since trainings with one thread can be repeated."""
    small = ("data.size=32", "search.train.epochs=1", "search.trials=6", "search.workers=0", "evaluate.samples=null")
    recipe = load_recipe("digits_search", [*CHOICES, *small])
    record = run_recipe(recipe, tmp_path / "search", until="search", console=Console(quiet=True))
    searched = result_of(record, "search", SearchResult)
    assert searched is not None
    for finalist in searched.finalists[:2]:
        assert finalist.problem == ""
        command = [
            sys.executable,
            "-m",
            "bitwright.experiments.cli",
            "run",
            str(tmp_path / "search" / finalist.recipes[0]),
        ]
        folder = tmp_path / finalist.key
        subprocess.run([*command, "--until", "evaluate", "--out", str(folder), "--quiet"], check=True, timeout=300)
        again = yaml.safe_load((folder / "record.json").read_text())["stages"]["evaluate"]["result"]
        found = EvaluateResult.model_validate(again).quantized[0].metrics["top1"].value
        (told,) = [each for each in searched.outcome.scored if each.key == finalist.key]
        assert found == told.figures["accuracy"]
        assert Workbench(load_recipe(str(tmp_path / "search" / finalist.recipes[0]))).recipe.search is None
