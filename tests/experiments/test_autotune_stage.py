"""The stage `autotune` of a run: the fastest file of a recipe's network, with tries that outlive a killed run."""

from pathlib import Path

import pytest

from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.record import Record
from bitwright.experiments.report.headline import headline_rows
from bitwright.experiments.results import TunedResult
from bitwright.experiments.run import run_recipe
from bitwright.experiments.stages.autotune import TRIES
from bitwright.experiments.summary import tuned_text
from bitwright.quant.errors import InputError

SMALL = (
    "data.size=16", "model.width=0.5", "model.depth=1", "train.epochs=1", "train.batch=64", "calibrate.samples=16",
    "target=x86-vnni", "autotune.tries=1", "autotune.minutes=0.1",
)  # fmt: skip


def go(folder: Path, *overrides: str) -> Record:
    recipe = load_recipe("digits", [*SMALL, *overrides])
    return run_recipe(recipe, folder, until="autotune", console=Console(quiet=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "plain"
    go(folder, "autotune.runtime=onnxruntime")
    return folder


def test_the_artefact_and_its_figures_are_in_the_record(run: Path) -> None:
    record = go(run, "autotune.runtime=onnxruntime")
    stage = record.stages["autotune"]
    assert stage.status == "reused"
    found = TunedResult.model_validate(stage.result)
    assert {Path(file).name for file in stage.files} == {"tuned.onnx", "tuned.provenance.json", "tries.jsonl"}
    assert found.latencies.keys() >= {"float", "full int8"} and found.tries <= 1
    assert all(figure.origin == "measured" for figure in (*found.latencies.values(), *found.ratios.values()))
    assert found.ratios.keys() == {"float", "full int8"}
    rows = {row.quantity: row for row in headline_rows(record)}
    assert rows["latency, tuned"].quantized == found.latencies[found.choice]
    assert f": {found.choice} is kept (" in tuned_text(found)


@pytest.mark.slow
def test_more_tries_go_on_with_the_record_and_another_network_begins_a_new_one(run: Path) -> None:
    record = run / TRIES / "tries.jsonl"
    before = record.read_text().splitlines()
    go(run, "autotune.runtime=onnxruntime", "autotune.tries=2")
    assert record.read_text().splitlines()[: len(before)] == before
    go(run, "autotune.runtime=onnxruntime", "seed=7")
    assert record.read_text().splitlines()[0] != before[0]


def test_a_table_of_something_else_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.table: no such file"):
        go(tmp_path / "run", "autotune.table=none.table")
