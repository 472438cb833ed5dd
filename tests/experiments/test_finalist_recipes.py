import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from bitwright.experiments.console import Console
from bitwright.experiments.finalist_recipes import FinalistWriter
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.read_run import result_of
from bitwright.experiments.recipe_training import FloatTrain
from bitwright.experiments.results import EvaluateResult
from bitwright.experiments.run import run_recipe
from bitwright.experiments.search_result import SearchResult
from bitwright.experiments.search_workload import RecipeWorkload
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


@dataclass(frozen=True)
class Ones:
    """A supernet in which every weight is 1."""

    workload: RecipeWorkload

    def __call__(self, candidate: Candidate) -> float:
        return 0.0

    def network(self, candidate: Candidate) -> torch.nn.Module:
        network = self.workload.build(self.workload.space.architecture(candidate))
        for weight in network.parameters():
            torch.nn.init.ones_(weight)
        return network


def counted(
    tmp_path: Path,
    *overrides: str,
    others: Sequence[RecipeWorkload] = (),
    inherits: bool = False,
    **chosen: object,
) -> tuple[Result, RecipeWorkload]:
    """A candidate as far as the search takes it without training: captured, linted, with its network's hash."""
    workload = RecipeWorkload(load_recipe("digits_search", [*CHOICES, *overrides]))
    space = workload.space
    values = {each.name: each.choices[0] for each in space.parameters}
    if "depth" in values:
        values |= {"width": 0.5, "depth": 2}
    inherited = Ones(workload) if inherits else None
    setup = Setup(space=space, workload=workload, folder=tmp_path, others=tuple(others), inherited=inherited)
    result = screen(Candidate(space.canonical({**values, **chosen})), setup)
    assert result.outcome is Outcome.SCORED, result
    figures = {**result.figures, "accuracy": 90.0, "accuracy_low": 79.8512, "accuracy_high": 95.3}
    return result.model_copy(update={"figures": figures}), workload


def writer(workload: RecipeWorkload, tmp_path: Path) -> FinalistWriter:
    return FinalistWriter([workload], workload.space, tmp_path / "finalists")


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
    assert recipe.train == FloatTrain(epochs=3, batch=64, lr=6e-3)
    assert recipe.evaluate.gate.bound == 79.851  # the low end, rounded so that the score itself passes


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
def test_a_finalist_for_two_targets_is_two_recipes_of_one_network(tmp_path: Path) -> None:
    other = RecipeWorkload(load_recipe("digits_search", [*CHOICES, "target=ethos-u85-1024"]))
    result, workload = counted(tmp_path, others=[other])
    both = FinalistWriter([workload, other], workload.space, tmp_path / "finalists")
    found = both.write(result, result.key)
    assert found.problem == ""
    recipes = [load_recipe(str(tmp_path / path)) for path in found.recipes]
    assert [each.target for each in recipes] == ["x86-vnni", "ethos-u85-1024"]
    alone = writer(workload, tmp_path).write(result, result.key)  # one target's hash is not that of both
    assert alone.problem.endswith(f"and the search scored {result.network}")


PART = ("search.space={kind: elastic, width: [0.5, 1.0], network_stages: 1, formats: [float32, int8], stages: 2}",)


def test_a_part_of_the_users_own_network_is_made_again_from_the_whole(tmp_path: Path) -> None:
    result, workload = counted(tmp_path, *PART)
    found = writer(workload, tmp_path).write(result, result.key)
    assert found.problem == ""
    recipe = load_recipe(str(tmp_path / found.recipes[0]))
    assert recipe.model.kind == "elastic_part"
    wanted = workload.build(workload.space.architecture(Candidate(result.values))).state_dict()
    own = Workbench(recipe).new_model().state_dict()
    assert list(own) == list(wanted)
    assert all(own[name].equal(wanted[name]) for name in wanted)


def test_a_finalist_begins_with_the_weights_that_it_inherited(tmp_path: Path) -> None:
    result, workload = counted(tmp_path, inherits=True)
    inheriting = FinalistWriter([workload], workload.space, tmp_path / "finalists", Ones(workload))
    found = inheriting.write(result, result.key)
    assert found.problem == ""
    recipe = load_recipe(str(tmp_path / found.recipes[0]))
    assert all((weight == 1).all() for weight in Workbench(recipe).new_model().parameters())
    assert "It begins with the weights that the search's supernet gave it." in (tmp_path / found.recipes[0]).read_text()


LONGER = "search.finalists={epochs: 7, batch: 32, lr: 1e-3}"


def test_a_finalist_that_is_trained_from_scratch_inherits_nothing(tmp_path: Path) -> None:
    result, workload = counted(tmp_path, LONGER, inherits=True)  # whose batch norms shift, as fresh ones do not
    figures = {**result.figures, "scratch_accuracy": 85.0, "scratch_accuracy_low": 73.9, "scratch_accuracy_high": 92.0}
    trained = result.model_copy(update={"figures": figures})
    writer = FinalistWriter([workload], workload.space, tmp_path / "finalists", Ones(workload))
    found = writer.write(trained, trained.key)
    assert (found.problem, found.low) == ("", 73.9)
    recipe = load_recipe(str(tmp_path / found.recipes[0]))
    assert recipe.model.weights is None
    assert recipe.train == FloatTrain(epochs=7, batch=32, lr=1e-3)
    assert recipe.evaluate.gate.bound == 73.9
    assert [each.name for each in (tmp_path / "finalists").iterdir()] == [f"{trained.key}.yaml"]
    text = " ".join((tmp_path / found.recipes[0]).read_text().replace("\n# ", " ").split())
    assert "Measured: accuracy 90, scratch_accuracy 85 " in text
    assert "The gate is the worse end of the 95 % interval of scratch_accuracy over the choice of samples." in text


def test_a_finalist_that_fails_from_scratch_says_why(tmp_path: Path) -> None:
    result, workload = counted(tmp_path, LONGER)
    failed = {result.key: "training it from scratch failed: train: the loss became nan"}
    writer = FinalistWriter([workload], workload.space, tmp_path / "finalists", failed=failed)
    found = writer.write(result, result.key)
    assert (found.problem, found.low) == (failed[result.key], None)
    recipe = load_recipe(str(tmp_path / found.recipes[0]))
    assert recipe.evaluate.gate.bound is None  # what the search scored is another training's


def test_a_sparse_finalist_trains_with_its_zeros(tmp_path: Path) -> None:
    space = "search.space={kind: mobile_conv, width: [0.5], sparsity: ['2:4'], stages: 1}"
    result, workload = counted(tmp_path, "target=ethos-u85-1024", space)  # where zeros make weights smaller
    found = writer(workload, tmp_path).write(result, result.key)
    assert found.problem == ""
    recipe = load_recipe(str(tmp_path / found.recipes[0]))
    assert recipe.train is not None
    assert set(recipe.train.sparsity.values()) == {"2:4"}
    dense = result.model_copy(update={"network": "0123456789abcdef"})
    assert writer(workload, tmp_path).write(dense, dense.key).problem.startswith(f"makes network {result.network}")


def test_where_less_is_better_the_gate_is_the_high_end(tmp_path: Path) -> None:
    own = ("evaluate.entry=error:rate", "evaluate.metric=error", "evaluate.direction=lower", "evaluate.gate.bound=96")
    result, workload = counted(tmp_path, *own)
    recipe = writer(workload, tmp_path).recipe(result, workload)
    assert recipe.evaluate.gate.bound == 95.3


@pytest.mark.parametrize("name", ["digits_search", "digits_two_targets", "camvid_search", "camvid_search_u85"])
def test_the_space_of_a_shipped_search_is_one_that_its_model_takes(name: str) -> None:
    recipe = load_recipe(name, ["data={kind: digits, size: 32}"])
    workload = RecipeWorkload(recipe)
    largest = Candidate(workload.space.canonical({p.name: p.choices[-1] for p in workload.space.parameters}))
    model = workload.build(workload.space.architecture(largest))
    assert set(workload.space.formats(largest, model).values()) == {workload.space.parameters[-1].choices[-1]}


LABELLED = "search.supernet={epochs: 1, labels: 1.0, random: 0, calibration: 1}"
WIDTHS = "search.space={kind: mobile_conv, width: [0.25, 0.5], formats: [int8, float32], stages: 1}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        (),
        (WIDTHS, "search.train=null", LABELLED, "search.finalists={epochs: 1, batch: 64, lr: 6e-3}"),
        ("target=ethos-u85-1024", "search.space={kind: mobile_conv, width: [0.5, 1.0], sparsity: ['2:4'], stages: 1}"),
    ],
    ids=["trained by the search", "inherited, and trained from scratch at its end", "with zeros"],
)
def test_a_finalist_run_from_scratch_reaches_the_score_of_the_search(tmp_path: Path, asked: tuple[str, ...]) -> None:
    """In another process and folder; the same bits, since trainings with one thread can be repeated."""
    small = ("data.size=32", "search.train.epochs=1", "search.trials=4", "search.workers=0", "evaluate.samples=null")
    recipe = load_recipe("digits_search", [*CHOICES, *small, *asked])
    assert recipe.search is not None
    record = run_recipe(recipe, tmp_path / "search", until="search", console=Console(quiet=True))
    searched = result_of(record, "search", SearchResult)
    assert searched is not None
    scored = "accuracy" if recipe.search.finalists is None else "scratch_accuracy"
    finalist = searched.finalists[0]
    assert finalist.problem == ""
    path, folder = tmp_path / "search" / finalist.recipes[0], tmp_path / finalist.key
    command = [sys.executable, "-m", "bitwright.experiments.cli", "run", str(path)]
    subprocess.run([*command, "--until", "evaluate", "--out", str(folder), "--quiet"], check=True, timeout=300)
    again = yaml.safe_load((folder / "record.json").read_text())["stages"]["evaluate"]["result"]
    found = EvaluateResult.model_validate(again).quantized[0].metrics["top1"].value
    (told,) = [each for each in searched.outcome.scored if each.key == finalist.key]
    assert found == told.figures[scored]
    assert load_recipe(str(path)).search is None
