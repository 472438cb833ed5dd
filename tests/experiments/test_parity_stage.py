"""The stage `parity` of a run: every form beside the one that it was made from, and a gate on what breaks."""

from pathlib import Path

import pytest

from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.parity_result import ParityResult
from bitwright.experiments.record import Record
from bitwright.experiments.run import run_recipe
from bitwright.experiments.stages.verdict import _parity_gates

SMALL = (
    "data.size=32", "model.width=0.5", "model.depth=1", "train.epochs=1", "train.batch=32", "calibrate.samples=16",
    "parity.samples=1",
)  # fmt: skip


def go(folder: Path, *overrides: str) -> Record:
    recipe = load_recipe("digits", [*SMALL, *overrides])
    return run_recipe(recipe, folder, until="parity", console=Console(quiet=True))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ParityResult:
    record = go(tmp_path_factory.mktemp("run") / "plain")
    return ParityResult.model_validate(record.stages["parity"].result)


def test_a_trained_network_is_the_same_in_every_form(plain: ParityResult) -> None:
    origins = {pair.link: pair.made_from for pair in plain.pairs}
    folded = "batch norms folded"
    assert [pair.agrees for pair in plain.pairs] == [True] * 6, plain.text
    assert origins["float.onnx in ONNX Runtime, optimisations: disabled"] == folded
    assert origins["quantized.onnx in ONNX Runtime, optimisations: disabled"] == folded
    assert plain.breaks == () and plain.inputs == 1 and all(pair.layers > 3 for pair in plain.pairs)


@pytest.mark.slow
def test_equalized_channels_are_no_break(tmp_path: Path) -> None:
    record = go(tmp_path / "run", "quantize.equalization=true")
    found = ParityResult.model_validate(record.stages["parity"].result)
    assert all(pair.agrees for pair in found.pairs), found.text
    assert found.pairs[-2].made_from == "simulation of quantized.onnx"


def test_the_gate_counts_layers_and_forms_that_do_not_run(plain: ParityResult) -> None:
    recipe = load_recipe("digits", ["parity.samples=1"])
    (clean,) = _parity_gates(recipe, plain)
    assert clean.passed and clean.value == 0
    crashed = plain.pairs[-1].model_copy(update={"agrees": False, "problem": "signal SIGSEGV"})
    (broken,) = _parity_gates(recipe, plain.model_copy(update={"pairs": (*plain.pairs[:-1], crashed)}))
    assert not broken.passed and broken.value == 1
    assert list(_parity_gates(load_recipe("digits", ["parity={gate: {max_breaks: null}}"]), plain)) == []
    assert list(_parity_gates(load_recipe("digits", []), None)) == []
