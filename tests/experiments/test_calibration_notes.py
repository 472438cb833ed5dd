"""A recipe that asks for more calibration samples than there are is told so."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.results import QuantizeResult
from bitwright.experiments.run import run_recipe
from bitwright.experiments.stages.quantize import calibration_notes


def test_enough_samples_need_no_words() -> None:
    assert calibration_notes(200, 200) == ()


@pytest.mark.slow
def test_the_note_is_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe("digits", ["calibrate.samples=100000", "train.epochs=1"])
    record = run_recipe(recipe, tmp_path / "run", until="quantize", console=Console())
    result = QuantizeResult.model_validate(record.stages["quantize"].result)
    note = f"calibrated with {result.samples} samples, all that the data have; calibrate.samples = 100000 asks for more"
    assert result.samples < 100_000 and note in result.notes
    assert f"    note: {note}\n" in capsys.readouterr().err
